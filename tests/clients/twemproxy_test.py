"""twemproxy (nutcracker) with ketama in front of three servers: keys spread, come back, and survive an ejection."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

from pymemcache.client.base import Client

from servers import PATIENCE, Servers

CONFIG = """
pool:
  listen: 127.0.0.1:{listen}
  hash: fnv1a_64
  distribution: ketama
  timeout: 60000
  auto_eject_hosts: true
  server_retry_timeout: 600000
  server_failure_limit: 1
  servers:
{servers}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(servers, folder):
    """Starts the proxy, returns its process and its port; again if a port was taken meanwhile."""
    for _ in range(5):
        process, listen, log = try_start(servers, folder)
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None:
            assert time.monotonic() < deadline, "the proxy does not listen"
            try:
                socket.create_connection(("127.0.0.1", listen), timeout=1).close()
                return process, listen
            except OSError:
                time.sleep(0.05)
    raise AssertionError(open(log).read())


def try_start(servers, folder):
    listen, monitor = free_port(), free_port()
    lines = "\n".join(f"   - {server.address}:1 node{i}" for i, server in enumerate(servers))
    path = os.path.join(folder, "nutcracker.yml")
    with open(path, "w") as config:
        config.write(CONFIG.format(listen=listen, servers=lines))
    binary = shutil.which("nutcracker", path=os.environ["PATH"] + ":/usr/sbin")
    log = os.path.join(folder, "log")
    command = [binary, "-c", path, "-s", str(monitor), "-a", "127.0.0.1", "-o", log, "-m", "16384"]
    return subprocess.Popen(command), listen, log


def values_come_back(client, servers):
    values = {f"proxied:{i}": b"%d" % i * (i % 40 + 1) for i in range(3000)}
    for key, value in values.items():
        assert client.set(key, value, noreply=False)
    names = list(values)
    for at in range(0, len(names), 100):
        part = names[at : at + 100]
        assert client.get_many(part) == {name: values[name] for name in part}
    held = [server.keys() for server in servers]
    assert sum(map(len, held)) == 3001 and min(map(len, held)) > 300, [len(h) for h in held]
    return values


def verbs(client):
    assert client.add("v", b"1", noreply=False) and not client.add("v", b"2", noreply=False)
    assert client.append("v", b"2", noreply=False) and client.prepend("v", b"0", noreply=False)
    value, token = client.gets("v")
    assert value == b"012" and client.cas("v", b"7", token, noreply=False) is True
    assert client.cas("v", b"8", token, noreply=False) is False
    assert client.incr("v", 5) == 12 and client.decr("v", 2) == 10
    assert client.touch("v", 100, noreply=False)
    assert client.delete("v", noreply=False) and client.get("v") is None
    big = b"b" * 1_000_000
    assert client.set("big", big, noreply=False) and client.get("big") == big


def ejection(client, servers, values):
    """One server goes: after its first failure the proxy sends its keys to the other two."""
    servers[0].stop()
    del servers[0]
    kept = set().union(*(server.keys() for server in servers))
    for key in values:
        try:
            client.get(key)
        except Exception:  # noqa: BLE001 - the failure that makes the proxy eject the server
            continue
    for key, value in values.items():
        assert client.set(key, value, noreply=False)
        assert client.get(key) == value
    assert len(kept) < len(values)
    assert set(values) <= set().union(*(server.keys() for server in servers))


def main():
    with Servers(3) as servers, tempfile.TemporaryDirectory() as folder:
        process, port = start(servers, folder)
        try:
            client = Client(("127.0.0.1", port), no_delay=True, timeout=PATIENCE)
            verbs(client)
            values = values_come_back(client, servers)
            ejection(client, servers, values)
        finally:
            process.terminate()
            process.wait(PATIENCE)


if __name__ == "__main__":
    sys.exit(main())
