#!/usr/bin/env bash
# Measures twincached beside memcached and an event loop that does no cache work, in turn, on two CPUs.
#
#   scripts/bench.sh                  everything, in about 25 minutes
#   scripts/bench.sh --quick          a look, in about three
#   scripts/bench.sh speed --rounds 3 one of the tables: speed, hot, memory, time, replication, tls, latency
#   scripts/bench.sh latency          p50, p99 and p99.9 of the client and of `stats latency` beside each other, and why they differ
#   scripts/bench.sh price            what it costs to measure latency and hot keys, and to be watched, in about five minutes
#   scripts/bench.sh load --help      the load generator alone
#   scripts/bench.sh failover         what clients see of failovers, 200 kills, in about 20 minutes; as root, with etcd
#   scripts/bench.sh failover --help  fewer of them
#   scripts/bench.sh hostile          attacks: how long others wait, and memory; in about five minutes
#   scripts/bench.sh replay --live    hit ratios of this server, of memcached and of the store itself, in two to three minutes
#   scripts/bench.sh replay --help    those of the store alone, over loads and traces
#
# --memcached PATH compares with another binary than the memcached in PATH, --twincached PATH measures another than
# the one built here, --only TEXT takes only rows with this in their title (not of memory). Writes results.json and
# plots to target/bench, or --out DIR.
set -euo pipefail
cd "$(dirname "$0")/.."

# Before anything is built for minutes.
case ${1-} in
-h | --help)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' scripts/bench.sh
    exit
    ;;
esac

# A descriptor each for 20,000 idle connections; where this is not allowed, as many are opened as are.
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"

# Prints where a benchmark's program is, built.
build() {
    echo ".. building" >&2
    cargo bench --quiet --no-run --bench "$1" --message-format=json |
        sed -n "s/.*\"name\":\"$1\".*\"executable\":\"\([^\"]*\)\".*/\1/p" | tail -n 1
}

case ${1-} in
failover | hostile | replay)
    bench=$1
    shift
    exec "$(build "$bench")" "$@"
    ;;
esac

# Time is too coarse for a percent: requests are counted in instructions.
if [ "${1-}" = price ]; then
    "$(build instructions)" --price
fi

compare=$(build compare)
"$compare" "$@"

# What follows goes with a whole run only.
case " $* " in
*" speed "* | *" memory "* | *" time "* | *" replication "* | *" tls "* | *" hot "* | *" latency "* | *" price "* | *" load "* | *" floor "* | *" -h "* | *" --help "*) exit ;;
esac
if ! command -v memtier_benchmark >/dev/null; then
    echo ".. memtier_benchmark is not installed: left out" >&2
    exit
fi

# Runs memtier_benchmark against a server: NAME PROGRAM.
memtier() {
    echo ".. memtier_benchmark: $1" >&2
    MEMCACHED_PORT_FILENAME=$ports/$1 taskset -c 0 "$2" -l 127.0.0.1 -p -1 -U 0 -t 1 -m 1024 "${user[@]}" &
    server=$!
    until port=$(sed -n 's/^TCP INET: //p' "$ports/$1" 2>/dev/null) && [ -n "$port" ]; do
        kill -0 "$server"
        sleep 0.1
    done
    local load=(taskset -c 1 memtier_benchmark -s 127.0.0.1 -p "$port" -P memcache_text -t 1 -c 50 -d 100
        --key-maximum 1000000 --hide-histogram)
    # Every key once, so that gets find something.
    "${load[@]}" --ratio 1:0 --key-pattern P:P -n allkeys >/dev/null
    "${load[@]}" --ratio 1:19 --test-time "$seconds" --json-out-file "target/bench/memtier-$1.json"
    kill "$server"
    wait "$server" || true
    server=
}

user=()
[ "$(id -u)" != 0 ] || user=(-u nobody)
seconds=20
case " $* " in *" --quick "*) seconds=3 ;; esac
server=
mkdir -p target/bench
ports=$(mktemp -d)
chmod 777 "$ports"
trap '[ -z "$server" ] || kill "$server"; rm -rf "$ports"' EXIT
memtier twincached "$(dirname "$compare")/../twincached"
memtier memcached "$(command -v memcached)"
