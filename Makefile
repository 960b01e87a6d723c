# What is built from what. scripts/build calls this and keeps two builds apart.

include := $(shell dirname "$$(dirname "$$(readlink -f "$$(command -v node)")")")
nodedir := $(if $(wildcard $(include)/include/node/node_api.h),--nodedir=$(include))
machine := $(shell uname -m)
target := $(or $(patsubst x86_64,x86,$(filter x86_64,$(machine))),$(patsubst aarch64,arm64,$(filter aarch64,$(machine))),$(machine))
multiarch := $(shell gcc -print-multiarch)
bpf_flags := -g -O2 -target bpf -mcpu=v3 -D__TARGET_ARCH_$(target) -I/usr/include/$(multiarch) \
	-Wall -Wextra -Werror -Wpadded
# Folders too: a file that was removed or added makes its folder newer.
typescript := $(shell find src -type d -o -name '*.ts')

all: build/bpf/lsr.bpf.o build/Release/addon.node build/layout.checked dist/cli.js

build/bpf/lsr.bpf.o: bpf/lsr.bpf.c $(wildcard bpf/*.h) Makefile
	@echo 'build: $@'
	mkdir -p $(@D)
	clang $(bpf_flags) -c $< -o $@.new
	llvm-strip --strip-debug $@.new
	mv $@.new $@

# Not `rebuild`: that removes build/.
build/Release/addon.node: binding.gyp $(wildcard addon/*)
	@echo 'build: $@'
	mkdir -p build/log
	node_modules/.bin/node-gyp configure build $(nodedir) >build/log/addon.log 2>&1 || { tail -n 40 build/log/addon.log >&2; exit 1; }
	touch $@

build/layout.checked: build/bpf/lsr.bpf.o build/Release/addon.node src/layout.ts src/layout-source.ts scripts/layout.ts
	@echo 'build: src/layout.ts against $<'
	node --import tsx scripts/layout.ts --check
	touch $@

# A fresh folder each time, so that nothing stays of a source that is gone.
dist/cli.js: $(typescript) tsconfig.json package-lock.json
	@echo 'build: dist/'
	rm -rf dist.new
	node_modules/.bin/tsc -p . --outDir dist.new
	chmod +x dist.new/cli.js
	rm -rf dist
	mv dist.new dist

.PHONY: all
.DELETE_ON_ERROR:
