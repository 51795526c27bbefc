#!/usr/bin/env bash
# Sends UDP packets out of an interface as fast as it goes, or slower, with the options of the kernel's own
# sample scripts (samples/pktgen in Linux), and compares what the generator says with the interface's counters.
#
#   hack/pktgen.sh -i DEV -d DEST_IP -m DST_MAC [-s SIZE] [-t THREADS] [-f CPU] [-n COUNT] [-b BURST] [-c CLONE]
#                  [-p PORT[-PORT]] [-w NS] [-6] [-T SECONDS] [-v] [-g GENERATOR]
#
#   -i DEV        interface to send out of
#   -d DEST_IP    destination; a range FIRST-LAST with the kernel's generator
#   -m DST_MAC    Ethernet address of the device under test
#   -s SIZE       bytes of a packet without its check sequence [60]
#   -t THREADS    so many, each on a core and a queue of its own [1]
#   -f CPU        the first thread's core [0]
#   -n COUNT      packets of each thread; 0: until -T or an interrupt [0]
#   -b BURST      packets handed to the driver at once [0]
#   -c CLONE      how often a packet is sent before the next is made [0]
#   -p PORTS      destination ports [9]
#   -w NS         pause after each packet [0]
#   -6            IPv6
#   -T SECONDS    stop after so long [10]
#   -v            show what the generator is told
#   -g GENERATOR  kernel: pktgen of the kernel; own: margay-bench (AF_XDP; one thread, no -b, -c, -w);
#                 dpdk:PROGRAM: Pktgen-DPDK on AF_PACKET [kernel where it has pktgen, else own]
#
#   PGDEV=DIR     where pktgen's files are, instead of /proc/net/pktgen
#   BENCH=FILE    margay-bench, instead of target/release/margay-bench
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PGDEV=${PGDEV:-/proc/net/pktgen}
BENCH=${BENCH:-$ROOT/target/release/margay-bench}
DEV='' DEST='' MAC='' SIZE=60 THREADS=1 FIRST=0 COUNT=0 BURST=0 CLONE=0 PORTS=9 DELAY=0 FAMILY=4 LENGTH=10
VERBOSE=false GENERATOR=''

main() {
  local option
  while getopts i:d:m:s:t:f:n:b:c:p:w:6T:vg:h option; do
    case $option in
      i) DEV=$OPTARG ;;
      d) DEST=$OPTARG ;;
      m) MAC=$OPTARG ;;
      s) SIZE=$(number -s "$OPTARG") ;;
      t) THREADS=$(number -t "$OPTARG") ;;
      f) FIRST=$(number -f "$OPTARG") ;;
      n) COUNT=$(number -n "$OPTARG") ;;
      b) BURST=$(number -b "$OPTARG") ;;
      c) CLONE=$(number -c "$OPTARG") ;;
      p) PORTS=$OPTARG ;;
      w) DELAY=$(number -w "$OPTARG") ;;
      6) FAMILY=6 ;;
      T) LENGTH=$(number -T "$OPTARG") ;;
      v) VERBOSE=true ;;
      g) GENERATOR=$OPTARG ;;
      *) usage ;;
    esac
  done
  [[ -n $DEV && -n $DEST && -n $MAC ]] || usage
  [[ $MAC =~ ^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$ ]] || fail "-m $MAC is not an Ethernet address, as in 02:00:00:00:00:01"
  [[ $PORTS =~ ^[0-9]+(-[0-9]+)?$ ]] || fail "-p $PORTS is not a port or a range of them, as in 9-19"
  [[ -e /sys/class/net/$DEV || $PGDEV != /proc/net/pktgen ]] || ip link show dev "$DEV" >/dev/null 2>&1 || fail "there is no interface $DEV; see ip link"
  ((EUID == 0)) || fail "packets are sent by root"
  ((THREADS > 0)) || fail "-t 0: at least one thread"
  [[ -n $GENERATOR ]] || GENERATOR=$(generator)
  local before after
  before=$(sent)
  case $GENERATOR in
    kernel) by_kernel ;;
    own) by_own ;;
    dpdk:*) by_dpdk "${GENERATOR#dpdk:}" ;;
    *) fail "-g $GENERATOR: give kernel, own or dpdk:PROGRAM" ;;
  esac
  after=$(sent)
  echo "interface $DEV: $((after - before)) packets sent, by its own counter"
}

usage() {
  sed -n '2,/^set /{s/^# \{0,1\}//;/^set /d;p}' "${BASH_SOURCE[0]}" >&2
  exit 2
}

fail() {
  echo "pktgen: $*" >&2
  exit 1
}

number() { # OPTION TEXT
  [[ $2 =~ ^[0-9]+$ ]] || fail "$1 $2 is not a number"
  echo "$2"
}

# The kernel's, where there is one.
generator() {
  [[ -d $PGDEV ]] || modprobe pktgen 2>/dev/null || true
  if [[ -d $PGDEV ]]; then
    echo kernel
  else
    echo "pktgen: this kernel has none (CONFIG_NET_PKTGEN): sending by margay-bench" >&2
    echo own
  fi
}

# What the interface says it sent. AF_XDP on veth goes past this counter of older kernels: 0 then.
sent() {
  ip -statistics -json link show dev "$DEV" 2>/dev/null | sed -n 's/.*"tx":{[^}]*"packets":\([0-9]*\).*/\1/p' | grep . || echo 0
}

# FILE WORDS...: tells pktgen something, which answers in the same file.
tell() {
  local file=$1 answer
  shift
  ! $VERBOSE || echo "$file: $*" >&2
  # A word that pktgen does not take fails the write.
  echo "$*" >"$PGDEV/$file" || fail "$PGDEV/$file does not take: $*"
  answer=$(sed -n 's/^Result: //p' "$PGDEV/$file" 2>/dev/null | tail -n 1)
  [[ $answer != ERROR* ]] || fail "$PGDEV/$file: $*: $answer"
}

by_kernel() {
  [[ -d $PGDEV ]] || fail "$PGDEV is missing: this kernel has no pktgen (CONFIG_NET_PKTGEN); try -g own"
  local thread device ports
  IFS=- read -ra ports <<<"$PORTS"
  tell pgctrl reset
  for ((thread = 0; thread < THREADS; thread++)); do
    device=$DEV@$((FIRST + thread))
    tell "kpktgend_$((FIRST + thread))" rem_device_all
    tell "kpktgend_$((FIRST + thread))" add_device "$device"
    # A queue a thread: threads that share one wait for each other.
    tell "$device" flag QUEUE_MAP_CPU
    tell "$device" queue_map_min "$thread"
    tell "$device" queue_map_max "$thread"
    tell "$device" count "$COUNT"
    tell "$device" clone_skb "$CLONE"
    tell "$device" pkt_size "$SIZE"
    tell "$device" delay "$DELAY"
    ((BURST == 0)) || tell "$device" burst "$BURST"
    tell "$device" dst_mac "$MAC"
    if ((FAMILY == 6)); then
      tell "$device" dst6 "$DEST"
    else
      tell "$device" dst_min "${DEST%-*}"
      tell "$device" dst_max "${DEST#*-}"
    fi
    tell "$device" udp_dst_min "${ports[0]}"
    tell "$device" udp_dst_max "${ports[-1]}"
    # Flows of different ports, as one flow would stay on one core of the device under test.
    tell "$device" flag UDPSRC_RND
    tell "$device" udp_src_min 1024
    tell "$device" udp_src_max 65000
  done
  # "start" returns when all is sent, or when it is told to stop.
  (sleep "$LENGTH" && echo stop >"$PGDEV/pgctrl") >/dev/null 2>&1 &
  local stopper=$!
  trap 'echo stop >"$PGDEV/pgctrl"' INT TERM
  tell pgctrl start
  kill "$stopper" 2>/dev/null || true
  for ((thread = 0; thread < THREADS; thread++)); do
    echo "$DEV@$((FIRST + thread)): $(grep -A 1 '^Result: OK' "$PGDEV/$DEV@$((FIRST + thread))" | tr -s ' \n' ' ')"
  done
}

by_own() {
  [[ -x $BENCH ]] || fail "no $BENCH: cargo build --release -p margay-bench"
  ((THREADS == 1 && BURST == 0 && CLONE == 0 && DELAY == 0)) || fail "-g own has one thread, and no -b, -c and -w"
  [[ $DEST != *-* && $PORTS != *-* ]] || fail "-g own takes one address and one port"
  local source length=$LENGTH
  source=$(ip -json -"$FAMILY" address show dev "$DEV" scope global | sed -n 's/.*"local":"\([^"]*\)".*/\1/p')
  [[ -n $source ]] || fail "$DEV has no IPv$FAMILY address to send from"
  ((COUNT == 0)) || fail "-g own sends for a time: give -T instead of -n"
  taskset -c "$FIRST" "$BENCH" generate --from "$DEV" --gateway "$MAC" --source "$source" --destination "$DEST" \
    --port "$PORTS" --flows 1000 --size $((SIZE + 4 > 64 ? SIZE + 4 : 64)) --seconds "$length"
}

by_dpdk() { # PROGRAM
  command -v "$1" >/dev/null || fail "no $1: Pktgen-DPDK is not in Debian; build it against dpdk-dev and give its path"
  local commands
  commands=$(mktemp "${TMPDIR:-/tmp}/margay-pktgen.XXXXXX")
  cat >"$commands" <<COMMANDS
set 0 size $((SIZE + 4))
set 0 count $COUNT
set 0 dst mac $MAC
set 0 dst ip ${DEST%-*}
set 0 dport ${PORTS%-*}
start 0
delay $((LENGTH * 1000))
stop 0
quit
COMMANDS
  "$1" -l "$FIRST,$((FIRST + THREADS))" --no-huge -m 1536 --no-pci --vdev "net_af_packet0,iface=$DEV" \
    -- -P -m "$((FIRST + 1)).0" -f "$commands"
  rm -f "$commands"
}

main "$@"
