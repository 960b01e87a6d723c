{
  'targets': [
    {
      'target_name': 'addon',
      'sources': [
        'addon/addon.cc',
        'addon/arguments.cc',
        'addon/btf.cc',
        'addon/entries.cc',
        'addon/errors.cc',
        'addon/fd.cc',
        'addon/filter.cc',
        'addon/link.cc',
        'addon/link_watch.cc',
        'addon/map.cc',
        'addon/object.cc',
        'addon/probe.cc',
        'addon/process.cc',
        'addon/program.cc',
        'addon/qdisc.cc',
        'addon/ring_buffer.cc',
      ],
      'include_dirs': ["<!(node -p \"require('node-addon-api').include_dir\")"],
      'defines': [
        'NAPI_VERSION=8',
        'NAPI_CPP_EXCEPTIONS',
        'NODE_ADDON_API_DISABLE_DEPRECATED',
        # A worker that is being terminated refuses exceptions; that must not abort the process.
        'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS',
      ],
      'cflags': ['<!@(pkg-config --cflags libbpf)', '-fvisibility=hidden'],
      'cflags_cc!': ['-fno-exceptions', '-std=gnu++17', '-std=gnu++20'],
      'cflags_cc': ['-std=c++20', '-fexceptions', '-Wall', '-Wextra', '-Werror'],
      'libraries': ['<!@(pkg-config --libs libbpf)'],
      # libbpf holds a pointer to our print function, which must outlive a worker that loaded us.
      'ldflags': ['-Wl,-z,nodelete'],
    },
  ],
}
