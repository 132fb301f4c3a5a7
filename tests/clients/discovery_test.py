"""Clients that ask one server for the others, as on Amazon ElastiCache: elasticache-auto-discovery, and django-elastipymemcache,
whose client is the one of pymemcache's sources that no release has yet. Where a release has it, that one, too."""

import os
import socket
import tempfile

from django_elastipymemcache.client import AWSElastiCacheClient
from elasticache_auto_discovery import discover

from servers import PATIENCE, Servers

try:
    from pymemcache.client.ext.aws_ec_client import AWSElastiCacheHashClient
except ImportError:
    AWSElastiCacheHashClient = None


class Teller:
    """Says to a server's control socket which servers there are."""

    def __init__(self, path):
        self.control = socket.socket(socket.AF_UNIX)
        self.control.settimeout(PATIENCE)
        self.control.connect(path)
        self.lines = self.control.makefile("r", newline="\r\n")
        assert self.lines.readline().startswith("twincache ")
        self.version = 0

    def tell(self, nodes):
        self.version += 1
        words = " ".join(f"localhost|127.0.0.1|{node.port}" for node in nodes)
        self.control.sendall(f"topology {self.version} {words}\r\n".encode())
        assert self.lines.readline() == "OK\r\n"

    def close(self):
        self.lines.close()
        self.control.close()


def ports(nodes):
    return [str(node.port).encode() for node in nodes]


def finds(address, servers, teller):
    for known in (servers[:1], servers, servers[1:]):
        teller.tell(known)
        assert discover(address, PATIENCE) == [[b"localhost", b"127.0.0.1", port] for port in ports(known)]


def follows(client, refresh, servers, teller):
    """The client uses the servers that are told, and no other."""
    values = {f"found:{i}": b"%d" % i for i in range(300)}
    for known in (servers[:2], servers, servers[1:]):
        teller.tell(known)
        refresh()
        assert len(client.clients) == len(known), client.clients
        assert client.set_many(values, noreply=False) == []
        assert client.get_many(list(values)) == values
        for server in servers:
            held = sum(key.startswith("found:") for key in server.keys())
            assert (held > 0) == (server in known), (held, server.port)
            server.ask(b"flush_all\r\n", b"OK\r\n")
    client.close()


def main():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "control")
        with Servers(3) as servers, Servers(1, "-o", f"control_socket={path}") as asked:
            address = asked[0].address
            teller = Teller(path)
            finds(address, servers, teller)
            for by_ip in (True, False):
                client = AWSElastiCacheClient(address, use_vpc_ip_address=by_ip, timeout=PATIENCE)
                follows(client, lambda: client._refresh_clients(force=True), servers, teller)
                if AWSElastiCacheHashClient:
                    client = AWSElastiCacheHashClient(address, use_vpc=by_ip, timeout=PATIENCE)
                    follows(client, client.reconfigure_nodes, servers, teller)
            teller.close()


if __name__ == "__main__":
    main()
