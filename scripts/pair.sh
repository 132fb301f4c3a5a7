#!/usr/bin/env bash
# A shard of two nodes on this machine, to try failover: etcd, two servers, two sidecars. Needs etcd (Debian's
# etcd-server) and Rust. Everything lives in a folder of its own, listens on loopback only, and ends with this script.
#
#   scripts/pair.sh [nodes]      default: 2 nodes; clients on 127.0.0.1:11311, 11312, …; pages on 127.0.0.1:9351, …
set -euo pipefail
cd "$(dirname "$0")/.."
nodes=${1:-2}
[[ $nodes =~ ^[2-5]$ ]] || { echo "usage: scripts/pair.sh [2..5]" >&2; exit 64; }
command -v etcd >/dev/null || { echo "etcd is needed: apt-get install etcd-server" >&2; exit 69; }
# Else these sidecars would take part in the other one's shard.
etcd_port=${ETCD_PORT:-23790}
etcd_url=http://127.0.0.1:$etcd_port
if curl -s -m 1 -o /dev/null "$etcd_url/health"; then
    echo "something is at $etcd_url already, another scripts/pair.sh perhaps: end it, or give an ETCD_PORT" >&2
    exit 69
fi
cargo build --release --quiet
bin=$PWD/target/release
folder=$(mktemp -d "${TMPDIR:-/tmp}/twincache-pair.XXXXXX")
declare -A pids

stop() {
    trap - EXIT
    kill "${pids[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$folder"
}
trap stop EXIT
trap 'exit 0' INT TERM

start() {  # name, command …
    local name=$1
    shift
    "$@" >>"$folder/$name.log" 2>&1 &
    pids[$name]=$!
}

# Said, because they ask for it.
user=()
[[ $EUID -ne 0 ]] || user=(-u root)

start_server() {
    start "server$1" "$bin/twincached" "${user[@]}" -l 127.0.0.1 -p $((11310 + $1)) -m 256 -t 2 \
        -o "managed,control_socket=$folder/control$1"
}

start_sidecar() {
    start "sidecar$1" "$bin/twincache-sidecar" "${user[@]}" --server "unix:$folder/control$1" --etcd "$etcd_url" --shard demo \
        --node "node$1" --advertise "127.0.0.1:$((11310 + $1))" --http "127.0.0.1:$((9350 + $1))"
}

# Whether a node says so: number, page.
says() { curl -fs -m 1 -o "$folder/page" "http://127.0.0.1:$((9350 + $1))/$2"; }

primary() {
    local node
    for ((node = 1; node <= nodes; node++)); do
        if says "$node" primary; then echo "$node"; return; fi
    done
    return 1
}

list() { "$bin/twincachectl" --etcd "$etcd_url" list 2>/dev/null; }

start etcd etcd --data-dir "$folder/etcd" --listen-client-urls "$etcd_url" --advertise-client-urls "$etcd_url" \
    --listen-peer-urls "http://127.0.0.1:$((etcd_port + 10))" \
    --initial-advertise-peer-urls "http://127.0.0.1:$((etcd_port + 10))" \
    --initial-cluster "default=http://127.0.0.1:$((etcd_port + 10))"
for ((node = 1; node <= nodes; node++)); do
    start_server "$node"
    start_sidecar "$node"
done
for ((tries = 0; tries < 100; tries++)); do
    # Until the list shows how far the standby is behind.
    owner=$(primary) && says $((owner == 1 ? 2 : 1)) standby && list | grep -q ' ms  *yes ' && break
    sleep 0.2
done
[[ -n ${owner:-} ]] || { tail -n 5 "$folder"/*.log >&2; echo "no node became primary" >&2; exit 1; }
cat <<TEXT
The shard 'demo' has $nodes nodes; node$owner is its primary. The logs are in $folder.

$(list || cat "$folder/page")

Try this in another terminal:
  printf 'set a 0 0 2\r\nhi\r\nget a\r\nquit\r\n' | nc 127.0.0.1 $((11310 + owner))
  kill -9 ${pids[server$owner]}      the primary's server: the other node answers within a moment (it comes back after 5 s)
  curl http://127.0.0.1:$((9350 + owner))/health
  $bin/twincachectl --etcd $etcd_url list
  $bin/twincachectl --etcd $etcd_url switchover demo
Ctrl-C ends it all.
TEXT
# The shell itself says on stderr that a job was killed.
exec 2>/dev/null
while true; do
    sleep 5
    for ((node = 1; node <= nodes; node++)); do
        kill -0 "${pids[server$node]}" 2>/dev/null || { echo "server $node is started again"; start_server "$node"; }
        kill -0 "${pids[sidecar$node]}" 2>/dev/null || { echo "sidecar $node is started again"; start_sidecar "$node"; }
    done
done
