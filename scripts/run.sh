#!/bin/sh
# What cargo starts programs with (.cargo/config.toml): cargo run, cargo test.
#
# The server, as memcached, refuses to run as root without -u. Whoever types `cargo run` as root, in a container
# say, gets it as the user nobody; a -u on the command line comes later and wins.
program=$1
shift
if [ "${program##*/}" = twincached ] && [ "$(id -u)" = 0 ]; then
    set -- -u nobody "$@"
fi
exec "$program" "$@"
