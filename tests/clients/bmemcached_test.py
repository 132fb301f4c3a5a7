"""python-binary-memcached: the binary protocol, one server, also over TLS, and a ring of three."""

import bmemcached
from bmemcached.exceptions import MemcachedException

from servers import PATIENCE, Servers, gone, over_tls

MEGABYTE = 1024 * 1024


def stores(client):
    assert client.set("a", "text") and client.get("a") == "text"
    assert client.set("n", 10) and client.get("n") == 10
    assert client.set("raw", b"\0\r\n\xff") and client.get("raw") == b"\0\r\n\xff"
    assert client.set("list", [1, {"k": 2}]) and client.get("list") == [1, {"k": 2}]
    assert not client.add("a", "x") and client.add("new", "x")
    assert not client.replace("nothing", "x") and client.replace("new", "y") and client.get("new") == "y"
    assert client.delete("new") and client.get("new") is None and client.get("new", "default") == "default"
    assert client.set("zip", "x" * 100_000, compress_level=9) and client.get("zip") == "x" * 100_000


def cas(client):
    assert client.set("c", "1")
    value, token = client.gets("c")
    assert value == "1" and token
    assert client.cas("c", "2", token) and client.get("c") == "2"
    assert not client.cas("c", "3", token) and client.get("c") == "2"
    assert client.delete("c", cas=token) is False and client.get("c") == "2"
    _, token = client.gets("c")
    assert client.delete("c", cas=token) and client.get("c") is None


def many(client):
    values = {f"m{i}": "v%d" % i for i in range(1000)}
    assert client.set_multi(values) in (True, [])
    assert client.get_multi(list(values)) == values
    assert client.get_multi(["m1", "none", "m2"]) == {"m1": "v1", "m2": "v2"}
    cas_values = client.get_multi(["m1", "m2"], get_cas=True)
    assert cas_values["m1"][0] == "v1" and cas_values["m1"][1] != cas_values["m2"][1]
    assert client.delete_multi(list(values)[:500]) is True
    assert len(client.get_multi(list(values))) == 500


def arithmetic(client):
    assert client.incr("fresh", 5, default=100) == 100
    assert client.incr("fresh", 5) == 105
    assert client.decr("fresh", 6) == 99
    assert client.decr("fresh", 1000) == 0


def big_values(client):
    value = bytes(i * 29 % 241 for i in range(MEGABYTE - 200))
    assert client.set("big", value, compress_level=0) and client.get("big") == value
    try:
        client.set("big", b"\1" * (MEGABYTE + 1), compress_level=0)
        raise AssertionError("stored more than -I")
    except MemcachedException as error:
        assert "Too large." in str(error)
    assert client.get("big") is None and client.get("a") == "text"


def expiry(client):
    assert client.set("soon", 1, time=1)
    assert client.set("kept", 1, time=100)
    gone(client.get, "soon")
    assert client.get("kept") == 1


def admin(client, server):
    stats = client.stats()[server.address]
    text = {str(k): str(v) for k, v in stats.items()}
    assert any("curr_items" in key for key in text), text
    assert client.stats("settings")[server.address]
    assert client.flush_all() and client.get("a") is None


def tls():
    for server, context in over_tls():
        address = f"localhost:{server.port}"
        client = bmemcached.Client([address], tls_context=context, socket_timeout=PATIENCE)
        for part in (stores, cas, many, arithmetic, big_values):
            part(client)
        assert client.flush_all() and client.get("a") is None
        client.disconnect_all()


def main():
    with Servers(1) as servers:
        client = bmemcached.Client(servers.addresses(), socket_timeout=PATIENCE)
        for part in (stores, cas, many, arithmetic, big_values, expiry):
            part(client)
        admin(client, servers[0])
        client.disconnect_all()
    with Servers(3) as servers:
        client = bmemcached.DistributedClient(servers.addresses(), socket_timeout=PATIENCE)
        values = {f"ring:{i}": "v%d" % i for i in range(900)}
        assert client.set_multi(values) in (True, [])
        assert client.get_multi(list(values)) == values
        held = [len(server.keys()) for server in servers]
        assert sum(held) == 900 and min(held) > 50, held
        client.disconnect_all()
    tls()


if __name__ == "__main__":
    main()
