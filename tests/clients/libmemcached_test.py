"""libmemcached's own tools: memccapable (text and binary), memcslap, and the small ones."""

import os
import re
import subprocess
import tempfile

from servers import PATIENCE, Servers

# What memccapable 1.x knows: a run that reports fewer has skipped some.
CAPABLE_TEXT = 27
CAPABLE_BINARY = 27

# It wants an error for a delete with more words than it knows. memcached ignores them since 1.6.40, and so do we.
NOT_CAPABLE = {"ascii delete", "ascii delete noreply"}


def run(*command):
    """Runs a tool, returns what it printed; it must end well and in time."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=10 * PATIENCE)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def capable(port, protocol, wanted):
    """Runs memccapable: all its tests pass but those that memcached itself does not pass."""
    command = ("memccapable", "-h", "127.0.0.1", "-p", str(port), "-t", str(PATIENCE), protocol)
    done = subprocess.run(command, capture_output=True, text=True, timeout=10 * PATIENCE)
    output = done.stdout + done.stderr
    # "[FAIL]" goes to the other stream, so that the name of the next test may follow at once.
    verdicts = re.findall(r"(ascii|binary) ((?:\S+ )*?\S+) {2,}(\[pass\])?", done.stdout)
    failed = {f"{kind} {name}" for kind, name, passed in verdicts if not passed}
    assert failed == (NOT_CAPABLE if protocol == "-a" else set()), f"{failed}\n{output}"
    assert len(verdicts) == wanted, output


def slap(server, *options):
    before = server.stats()
    output = run("memcslap", "-s", server.address, "--concurrency=4", "--execute-number=2000", *options)
    assert "Time total" in output, output
    after = server.stats()
    return {name: int(after[name]) - int(before[name]) for name in ("cmd_set", "cmd_get", "get_hits")}


def load(server):
    for wire in ([], ["--binary"]):
        assert slap(server, "--test=set", *wire)["cmd_set"] >= 8000
        for test in ("get", "mget"):
            counts = slap(server, f"--test={test}", "--flush", *wire)
            assert counts["get_hits"] == counts["cmd_get"] >= 2000, (test, wire, counts)
    assert slap(server, "--test=set", "--noreply")["cmd_set"] >= 7000


def small_tools(server):
    """memccp, memccat, memcexist, memctouch, memcrm, memcdump, memcstat, memcping, memcflush."""
    at = f"--servers={server.address}"
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "a-file")
        with open(path, "w") as file:
            file.write("contents\n" * 1000)
        for wire in ([], ["--binary"]):
            run("memccp", at, *wire, path)
            assert run("memccat", at, *wire, "a-file").strip() == ("contents\n" * 1000).strip()
            run("memcexist", at, *wire, "a-file")
            run("memctouch", at, *wire, "--expire=100", "a-file")
            run("memcrm", at, *wire, "a-file")
            assert subprocess.run(["memcexist", at, *wire, "a-file"], capture_output=True).returncode != 0
        assert "threads: 4" in run("memcstat", at)
        run("memcping", at)
        run("memccp", at, path)
        run("memcflush", at)
        assert server.ask(b"get a-file\r\n", b"END\r\n") == b"END\r\n"


def main():
    with Servers(1) as servers:
        capable(servers[0].port, "-a", CAPABLE_TEXT)
        capable(servers[0].port, "-b", CAPABLE_BINARY)
        load(servers[0])
        small_tools(servers[0])


if __name__ == "__main__":
    main()
