#!/usr/bin/env bash
# Real clients against the server: clients/run.sh [SERVER]; default $TWINCACHED, else the debug build.
#
# Installs what it finds missing (Debian packages only as root; Python clients into a virtual environment and
# memjs into a folder, both under target/clients). What cannot be had is named in one line and skipped, unless
# CLIENTS_REQUIRED=1. Fails when any client fails.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")
TWINCACHED=$(realpath -m "${1:-${TWINCACHED:-$target/debug/twincached}}")
export TWINCACHED
state=$target/clients
# Only to end what hangs.
limit=600
failed=()
skipped=()
passed=0

install_packages() {
    local missing=() package
    for package in libmemcached-tools libmemcached-dev libsasl2-modules nutcracker gcc nodejs npm python3-venv; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
    done
    [[ ${#missing[@]} -eq 0 ]] && return
    if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
        return
    fi
    # One by one: a package that cannot be had must not take the others with it.
    apt-get update -qq >/dev/null 2>&1
    for package in "${missing[@]}"; do
        provided "$package" || DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$package" >/dev/null 2>&1
    done
}

# Whether what a package is for is there by another way.
provided() {
    case $1 in
        gcc) command -v gcc >/dev/null ;;
        nodejs) command -v node >/dev/null ;;
        npm) command -v npm >/dev/null ;;
        python3-venv) python3 -c 'import venv, ensurepip' 2>/dev/null ;;
        *) false ;;
    esac
}

install_python() {
    python="$state/venv/bin/python"
    [[ -x $python ]] || python3 -m venv "$state/venv" >/dev/null 2>&1 || return
    local name
    for name in pymemcache pylibmc python-binary-memcached elasticache-auto-discovery django-elastipymemcache; do
        "$python" -m pip show -q "$name" 2>/dev/null ||
            timeout 120 "$python" -m pip install -q --disable-pip-version-check "$name" >/dev/null 2>&1
    done
}

install_node() {
    command -v npm >/dev/null || return
    [[ -d $state/node/node_modules/memjs ]] ||
        timeout 120 npm install --prefix "$state/node" --silent --no-audit --no-fund memjs >/dev/null 2>&1
}

# client NAME HAVE COMMAND…: runs COMMAND, or names the client as skipped when HAVE fails.
client() {
    local name=$1 have=$2 began=$SECONDS
    shift 2
    if ! bash -c "$have" >/dev/null 2>&1; then
        echo "clients: $name cannot be had here, skipped"
        skipped+=("$name")
        return
    fi
    if (cd "$here" && PYTHONDONTWRITEBYTECODE=1 timeout "$limit" "$@"); then
        passed=$((passed + 1))
        echo "clients: $name ok ($((SECONDS - began)) s)"
    else
        echo "clients: $name FAILED"
        failed+=("$name")
    fi
}

[[ -x $TWINCACHED ]] || { echo "clients: no server at $TWINCACHED"; exit 1; }
mkdir -p "$state"
install_packages
install_python
install_node
export PATH="$PATH:/usr/sbin" NODE_PATH="$state/node/node_modules"

client pymemcache "$python -c 'import pymemcache'" "$python" pymemcache_test.py
discovery="import elasticache_auto_discovery, django_elastipymemcache"
client discovery "$python -c '$discovery'" "$python" discovery_test.py
client pylibmc "$python -c 'import pylibmc'" "$python" pylibmc_test.py
client python-binary-memcached "$python -c 'import bmemcached'" "$python" bmemcached_test.py
client logins "$python -c 'import bmemcached, pymemcache'" "$python" auth_test.py
client memjs "node -e 'require(\"memjs\")'" python3 servers.py 3 node memjs_test.js
client libmemcached "command -v memccapable && command -v memcslap" python3 libmemcached_test.py
client twemproxy "command -v nutcracker && $python -c 'import pymemcache'" "$python" twemproxy_test.py

# As cargo's tests say it, to be added up with theirs.
echo "clients: $passed passed; ${#failed[@]} failed; ${#skipped[@]} ignored;"
[[ ${#failed[@]} -eq 0 ]] || { echo "clients: failed: ${failed[*]}"; exit 1; }
[[ ${#skipped[@]} -eq 0 || ${CLIENTS_REQUIRED:-0} != 1 ]] || exit 1
