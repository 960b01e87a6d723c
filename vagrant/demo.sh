#!/usr/bin/env bash
# Shows the lab at work, from `vagrant up` to `vagrant destroy`, and checks each step. Ends with a line PASS or FAIL.
# Usage: vagrant/demo.sh        (environment: see Vagrantfile; KEEP=yes leaves the machines running)
set -euo pipefail
cd "$(dirname "$0")"

readonly agents=(gw ids fw edge) # the hops first, so that nothing is sent before they know it
readonly server=10.9.0.10

main() {
  started=$(date +%s)
  work=$(mktemp --directory)
  mkfifo "$work/hold"
  trap finish EXIT
  outcome="FAIL: it ended early"

  step 'Six machines, an agent on each of four'
  run vagrant up
  vagrant ssh-config >"$work/ssh" 2>/dev/null
  on gw 'uname -sr; systemctl is-active lsr-agent'
  on gw 'systemctl show lsr-agent -p AmbientCapabilities'

  step 'Offloads are as the NICs have them'
  on fw "sudo ethtool -k mesh0 | grep -E '^(tx-checksumming|tcp-segmentation-offload|generic-segmentation-offload|generic-receive-offload):'"

  step 'Without a chain: the negative control'
  on client "curl -sS --max-time 60 http://$server/"
  expect 'no path is recorded' '^0$' count_records
  expect 'and no hop forwarded it' '^0$' count_advanced fw

  step 'With the chain "web": edge → fw → ids → gw'
  apply mesh.yaml
  on client "curl -sS --max-time 60 http://$server/"
  show_record
  expect 'the record is complete' 'recorded.*fw.*ids.*gw.*"verdict":"complete"' read_records

  step 'Bulk TCP, MTU 1500 everywhere'
  on client "iperf3 --client $server --bytes 20M --connect-timeout 30000 | tail -n 4"
  on client "iperf3 --client $server --bytes 20M --reverse --connect-timeout 30000 | tail -n 4"

  step 'Packets of all sizes, byte for byte: checksums and segments left to the NICs'
  compare_all
  step 'The same where the receivers compute each checksum'
  on client 'sudo ethtool -K eth1 rx off gro off'
  on server 'sudo ethtool -K eth1 rx off gro off'
  compare_all

  step 'ping -R: options from outside are dropped at the edge'
  expect 'no answer' '100% packet loss' on_quietly client "ping -R -c 3 -W 5 $server"
  expect 'counted by name' edge_option on_quietly edge 'sudo lsr-agent drops'

  step 'A new daemon on fw, under traffic: nothing is lost'
  on_quietly client "ping -i 0.1 -c 300 -W 20 $server" >"$work/ping" &
  local ping=$!
  sleep 5
  on fw 'sudo systemctl restart lsr-agent && systemctl is-active lsr-agent'
  wait "$ping" || true
  expect '300 of 300' '300 packets transmitted, 300 received, 0% packet loss' cat "$work/ping"

  step 'fw boots: systemd brings the agent back, and the chain heals'
  on fw 'cat /proc/sys/kernel/random/boot_id' | tee "$work/before"
  on_quietly fw 'sudo systemctl reboot' || true
  within 120 'without it nothing comes through' is_cut
  within 600 'it is ready again' has_booted
  within 120 'the chain is whole' on_quietly client "curl -sS --max-time 20 http://$server/"
  expect 'the newest record is complete' '"verdict":"complete"' read_records

  outcome=PASS
}

run() {
  echo "\$ $*"
  "$@"
}

step() { printf '\n%s [%d s]\n' "$1" "$(($(date +%s) - started))"; }

# As `vagrant ssh HOST -c COMMAND`, which takes seconds longer.
on() {
  echo "$1\$ $2"
  on_quietly "$@"
}

on_quietly() { ssh -n -F "$work/ssh" -o ConnectTimeout=60 -o LogLevel=ERROR "$1" "$2"; }

# The first time the daemon starts a thread that reads documents; an emulated processor may take longer than it is given, 10 s.
apply() {
  local host put="sudo curl -sS --fail-with-body --unix-socket /run/lsr-agent/api.sock -X PUT -H 'content-type: application/yaml' --data-binary @/lab/$1 http://agent/v1/mesh"
  for host in "${agents[@]}"; do
    on "$host" "$put" || on "$host" "$put"
    echo
  done
}

show_record() { run vagrant ssh gw -c 'curl -s http://127.0.0.1:7913/v1/paths'; }

read_records() { on_quietly gw "curl -s 'http://127.0.0.1:7913/v1/paths?limit=1'"; }

count_records() { on_quietly gw "found=\$(curl -sSf http://127.0.0.1:7913/v1/paths) && { grep -o '\"verdict\"' <<<\"\$found\" || true; } | wc -l"; }

count_advanced() { on_quietly "$1" "found=\$(curl -sSf http://127.0.0.1:7913/metrics) && awk '/outcome=.advanced/ { sum += \$NF } END { print sum + 0 }' <<<\"\$found\""; }

is_cut() { ! on_quietly client "ping -c 2 -W 3 $server"; }

has_booted() {
  [[ $(on_quietly fw 'cat /proc/sys/kernel/random/boot_id') != $(tail -n 1 "$work/before") ]] &&
    on_quietly fw 'curl -s http://127.0.0.1:7913/v1/status' | grep -q '"state":"ready"'
}

# A stream both ways at once, and datagrams around the longest that fits; no receiver finds a broken one.
compare_all() {
  local limit kind host
  on_quietly client "python3 /lab/datagrams.py send $server 5009 1472 2 do" >/dev/null
  limit=$(on_quietly client "ip -j route get $server | grep -o '\"mtu\":[0-9]*' | cut -d : -f 2")
  [[ $limit ]] || fail 'the client was not told the path MTU'
  echo "  the client was told: at most $limit bytes"
  compare 'a stream of 5 MB each way' 'stream.py serve 5001 5000000' "stream.py connect $server 5001 5000000"
  for kind in '100 50 want' '1200 20 do' "$((limit - 29)) 20 do" "$((limit - 28)) 20 do" '24000 5 want 1200' \
    "$(((limit - 28) * 10)) 5 do $((limit - 28))" '4000 20 dont' '9000 5 want'; do
    compare "datagrams: $kind" 'datagrams.py receive 5009' "datagrams.py send $server 5009 $kind"
  done
  for host in client server; do
    expect "nothing was broken at the $host" '^0$' on_quietly "$host" \
      "nstat -asz IpInHdrErrors TcpInCsumErrors UdpInCsumErrors IcmpInCsumErrors IpExtInCsumErrors | awk 'NR > 1 { sum += \$2 } END { print sum }'"
  done
}

# compare WHAT AT_SERVER AT_CLIENT: the scripts of tests/helpers, which print how much they sent and got, and digests of it.
compare() {
  local hold receiver sent
  ssh -F "$work/ssh" -o LogLevel=ERROR server "timeout 60 python3 /lab/$2" <"$work/hold" >"$work/received" &
  receiver=$!
  exec {hold}>"$work/hold"
  until grep -q ready "$work/received"; do
    kill -0 "$receiver" 2>/dev/null || fail "$1: the receiver did not start"
    sleep 0.1
  done
  sent=$(on_quietly client "timeout 60 python3 /lab/$3")
  exec {hold}>&- # the receiver of datagrams has its standard input end, and then nothing coming
  wait "$receiver"
  expect "$1" '^same$' python3 -c "$same" "$sent" "$(tail -n 1 "$work/received")"
}
readonly same='
import json, sys
sent, received = map(json.loads, sys.argv[1:])
if "digest" in sent:
    same = sent["refused"] == 0 and (sent["sent"], sent["digest"]) == (received["count"], received["digest"])
else:
    same = (sent["sent"], sent["received"]) == (received["received"], received["sent"])
print("same" if same else f"{sent} became {received}")'

# expect WHAT PATTERN COMMAND…: what the command prints has to match.
expect() {
  local what=$1 pattern=$2 printed
  shift 2
  printed=$("$@" 2>&1) || true
  if grep -qE -- "$pattern" <<<"$printed"; then
    echo "  ok: $what"
  else
    fail "$what: no /$pattern/ in: $printed"
  fi
}

# within SECONDS WHAT COMMAND…: tries until it succeeds.
within() {
  local limit=$1 what=$2 begun
  shift 2
  begun=$(date +%s)
  until "$@" >/dev/null 2>&1; do
    (($(date +%s) - begun < limit)) || fail "$what: not within $limit s"
    sleep 2
  done
  echo "  ok: $what, after $(($(date +%s) - begun)) s"
}

fail() {
  outcome="FAIL: $*"
  exit 1
}

finish() {
  local left=0
  if [[ ${KEEP-} != yes ]]; then
    step 'Destroy, and nothing is left'
    run vagrant destroy --force || outcome="FAIL: vagrant destroy"
    left=$(vagrant status --machine-readable | grep -cE ',state,(running|shutoff|paused)$' || true)
    [[ $left == 0 ]] || outcome="FAIL: $left machines are left"
  fi
  rm -rf "$work"
  printf '\n%s, after %d s\n' "$outcome" "$(($(date +%s) - started))"
  [[ $outcome == PASS ]] || exit 1
}

main "$@"
