"""Starts servers under test, for the client scripts beside this file.

As a module: `with Servers(3) as servers:`. As a program: `servers.py N COMMAND…` runs COMMAND with the
ports of N servers in $PORTS and exits as it does. The server is $TWINCACHED.

Every server listens on 127.0.0.1, on a port that the kernel chose, and must still be alive at the end.
"""

import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from urllib.parse import unquote

# Only to end what hangs: no test may fail because the machine is slow.
PATIENCE = 60


class Server:
    """One running server."""

    def __init__(self, *options, env=None):
        self.folder = tempfile.TemporaryDirectory()
        ports = os.path.join(self.folder.name, "ports")
        command = [os.environ["TWINCACHED"], "-l", "127.0.0.1", "-p", "-1", "-U", "0", *options]
        if os.geteuid() == 0:
            command += ["-u", "root"]
        self.process = subprocess.Popen(command, env={**os.environ, **(env or {}), "MEMCACHED_PORT_FILENAME": ports})
        self.port = self._wait_for_port(ports)
        self.address = f"127.0.0.1:{self.port}"

    def _wait_for_port(self, path):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the server ended with {self.process.returncode}"
            if os.path.exists(path):
                with open(path) as lines:
                    return next(int(line.split()[-1]) for line in lines if line.startswith("TCP INET:"))
            time.sleep(0.02)
        raise AssertionError("the server did not write its port file")

    def ask(self, request, end):
        """Sends raw bytes on a fresh connection, returns what comes up to and including `end`."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
            connection.sendall(request)
            reply = b""
            while not reply.endswith(end):
                piece = connection.recv(65536)
                assert piece, f"closed after {reply!r}"
                reply += piece
            return reply

    def stats(self):
        """`stats` as a dict of text."""
        lines = self.ask(b"stats\r\n", b"END\r\n").decode().splitlines()[:-1]
        return dict(line.split(" ", 2)[1:] for line in lines)

    def keys(self):
        """Every key that the server holds."""
        lines = self.ask(b"lru_crawler metadump hash\r\n", b"END\r\n").decode().splitlines()
        return {unquote(line.split()[0].removeprefix("key=")) for line in lines if line.startswith("key=")}

    def stop(self):
        """Ends the server now; it must have been alive."""
        assert self.process.poll() is None, f"the server died with {self.process.returncode}"
        self.process.terminate()
        assert self.process.wait(PATIENCE) == 0, f"the server stopped with {self.process.returncode}"
        self.folder.cleanup()


def gone(get, key):
    """Waits until a key has expired."""
    deadline = time.monotonic() + PATIENCE
    while get(key) is not None:
        assert time.monotonic() < deadline, f"{key} does not expire"
        time.sleep(0.1)


class Servers(list):
    """Several servers, as a context."""

    def __init__(self, count, *options, env=None):
        super().__init__(Server(*options, env=env) for _ in range(count))

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        for server in self:
            if kind is None:
                server.stop()
            else:
                server.process.kill()

    def addresses(self):
        return [server.address for server in self]


def over_tls():
    """Servers that speak TLS as localhost, each with a context for clients: of TLS 1.2, and of 1.3."""
    with tempfile.TemporaryDirectory() as folder:
        cert, key = (os.path.join(folder, name) for name in ("cert", "key"))
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        make += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-out", cert, "-keyout", key]
        subprocess.run(make, check=True, stderr=subprocess.DEVNULL)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context(cafile=cert)
            context.minimum_version = context.maximum_version = version
            with Servers(1, "-Z", "-o", f"ssl_chain_cert={cert},ssl_key={key}") as servers:
                yield servers[0], context


def main():
    with Servers(int(sys.argv[1])) as servers:
        ports = " ".join(str(server.port) for server in servers)
        status = subprocess.call(sys.argv[2:], env={**os.environ, "PORTS": ports})
    sys.exit(status)


if __name__ == "__main__":
    main()
