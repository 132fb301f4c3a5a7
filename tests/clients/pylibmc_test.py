"""pylibmc (libmemcached): text and binary, behaviours, and a ketama ring over three servers."""

import threading

import pylibmc

from servers import PATIENCE, Servers, gone

MEGABYTE = 1024 * 1024
# In milliseconds. libmemcached waits for the whole second one when the binary protocol touches a missing key.
PATIENT = {"connect_timeout": 1000 * PATIENCE, "_poll_timeout": 15_000}


def found(verb, *arguments):
    """What a verb says; over binary, libmemcached turns a missing key into an error."""
    try:
        return verb(*arguments)
    except pylibmc.NotFound:
        return False


def stores(client):
    assert client.set("a", "text") and client.get("a") == "text"
    assert client.set("n", 41) and client.get("n") == 41
    assert client.set("list", [1, {"k": (2, None)}]) and client.get("list") == [1, {"k": (2, None)}]
    assert client.set("raw", b"\0\r\n\xff") and client.get("raw") == b"\0\r\n\xff"
    assert client.set("flag", True) and client.get("flag") == 1
    assert not client.add("a", "other") and client.add("new", "x")
    assert not found(client.replace, "nothing", "x") and client.replace("new", "y")
    assert client.append("new", "z") and client.prepend("new", "x") and client.get("new") == "xyz"
    assert client.set("empty", b"") and client.get("empty") == b""
    assert client.delete("new") and not client.delete("new") and client.get("new") is None
    assert client.get("new", "default") == "default"
    assert "a" in client and "new" not in client


def many(client):
    values = {f"m{i}": "v%d" % i * (i % 50) for i in range(1000)}
    assert client.set_multi(values) == []
    assert client.get_multi(list(values)) == values
    assert client.get_multi(["1", "2"], key_prefix="m") == {"1": values["m1"], "2": values["m2"]}
    assert client.add_multi({"m1": "x", "fresh": "y"}) == ["m1"]
    assert client.delete_multi(list(values)[:500]) is True
    assert len(client.get_multi(list(values))) == 500


def arithmetic(client):
    client.set("n", 10)
    assert client.incr("n") == 11 and client.incr("n", 9) == 20 and client.decr("n", 5) == 15 and client.decr("n", 99) == 0
    client.set("n2", 1)
    client.incr_multi(["n", "n2"], delta=3)
    assert client.get_multi(["n", "n2"]) == {"n": 3, "n2": 4}
    try:
        client.incr("missing")
        raise AssertionError("incremented nothing")
    except pylibmc.NotFound:
        pass


def cas_loops(make):
    make().set("c", 0)

    def add():
        client = make()
        for _ in range(100):
            while True:
                value, token = client.gets("c")
                try:
                    if client.cas("c", value + 1, token):
                        break
                except pylibmc.Error as error:
                    # libmemcached says "NOT STORED" or "DATA EXISTS" by protocol; both mean: try again.
                    assert "EXISTS" in str(error) or "NOT STORED" in str(error), error

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert make().get("c") == 400


def big_values(client):
    value = bytes(i * 37 % 253 for i in range(MEGABYTE - 200))
    assert client.set("big", value) and client.get("big") == value
    assert client.set("squeezed", b"x" * 4 * MEGABYTE, min_compress_len=1000)
    assert client.get("squeezed") == b"x" * 4 * MEGABYTE
    try:
        client.set("big", b"x" * (MEGABYTE + 1))
        raise AssertionError("stored more than -I")
    except pylibmc.Error:
        pass
    assert client.get("a") == "text"


def expiry(client):
    client.set("later", 1, time=5)
    assert client.touch("later", 100)
    assert not client.touch("missing", 100)
    # When this one is gone, the other would be, too.
    client.set("soon", 1, time=5)
    gone(client.get, "soon")
    assert client.get("later") == 1


def admin(client, server):
    (name, stats), = client.get_stats()
    name = name.decode() if isinstance(name, bytes) else name
    assert str(server.port) in name
    stats = {str(k): v for k, v in stats.items()}
    assert any("curr_items" in key for key in stats) and any("threads" in key for key in stats)
    assert client.get_stats("settings")
    assert client.flush_all() and client.get("a") is None


def quiet(make):
    """Buffered and unanswered stores arrive, in order, before the next answered request."""
    client = make(buffer_requests=True, no_block=True)
    for i in range(500):
        try:
            client.set("buffered", i)
        except pylibmc.Error as error:
            # "It is buffered" reaches Python as an error.
            assert "error 32" in str(error), error
    assert client.get("buffered") == 499
    client = make(_noreply=True)
    for i in range(500):
        client.set("unanswered", i)
    assert client.get("unanswered") == 499


def one_server(binary):
    with Servers(1) as servers:

        def make(**behaviors):
            return pylibmc.Client(servers.addresses(), binary=binary, behaviors={**PATIENT, "cas": True, "tcp_nodelay": True, **behaviors})

        client = make()
        for part in (stores, many, arithmetic, big_values, expiry):
            part(client)
        cas_loops(make)
        quiet(make)
        pool = pylibmc.ClientPool(client, 4)
        with pool.reserve() as pooled:
            assert pooled.get("a") == "text"
        admin(client, servers[0])
        client.disconnect_all()


def ketama(binary):
    """Two independent clients agree on the ring; a dead node's keys move, the others' stay where they were."""
    with Servers(3) as servers:
        behaviors = {"ketama": True, "tcp_nodelay": True, "remove_failed": 1, "retry_timeout": 1, **PATIENT}
        client = pylibmc.Client(servers.addresses(), binary=binary, behaviors=behaviors)
        values = {f"ketama:{i}": "v%d" % i for i in range(3000)}
        assert client.set_multi(values) == []
        other = pylibmc.Client(servers.addresses(), binary=binary, behaviors=behaviors)
        assert other.get_multi(list(values)) == values
        held = [server.keys() for server in servers]
        assert sum(map(len, held)) == 3000 and min(map(len, held)) > 300, [len(h) for h in held]
        servers[1].stop()
        del servers[1]
        smaller = pylibmc.Client(servers.addresses(), binary=binary, behaviors=behaviors)
        found = set(smaller.get_multi(list(values)))
        assert found == held[0] | held[2], "a ring with one node less moves only that node's keys"


def main():
    for binary in (False, True):
        one_server(binary)
        ketama(binary)


if __name__ == "__main__":
    main()
