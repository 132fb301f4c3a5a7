"""pymemcache: text protocol, pool, serialisation, a ring over three servers, meta commands in raw form."""

import threading

from pymemcache import serde
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient
from pymemcache.client.retrying import RetryingClient
from pymemcache.exceptions import MemcacheClientError, MemcacheIllegalInputError, MemcacheServerError

from servers import PATIENCE, Servers, gone, over_tls

MEGABYTE = 1024 * 1024


def stores(client):
    assert client.set("a", b"1", noreply=False) is True
    assert client.add("a", b"2", noreply=False) is False
    assert client.add("b", b"2", noreply=False) is True
    assert client.replace("c", b"3", noreply=False) is False
    assert client.replace("b", b"3", noreply=False) is True
    assert client.append("b", b"!", noreply=False) is True
    assert client.prepend("b", b"?", noreply=False) is True
    assert client.append("missing", b"!", noreply=False) is False
    assert client.get("b") == b"?3!"
    assert client.get("missing") is None
    assert client.get("missing", default=7) == 7
    assert client.set("flagged", b"x", flags=0xFFFFFFFF, noreply=False)
    assert client.set("empty", b"", noreply=False) and client.get("empty") == b""
    assert client.set("crlf", b"\r\nEND\r\n\0\xff", noreply=False)
    assert client.get("crlf") == b"\r\nEND\r\n\0\xff"


def many(client):
    values = {f"many:{i}": b"v%d" % i * (i + 1) for i in range(1000)}
    assert client.set_many(values, noreply=False) == []
    assert client.get_many(list(values)) == values
    assert client.get_many(["many:1", "nothing", "many:2"]) == {"many:1": values["many:1"], "many:2": values["many:2"]}
    gets = client.gets_many(["many:1", "many:2"])
    assert gets["many:1"][1] != gets["many:2"][1] and gets["many:1"][0] == values["many:1"]
    assert client.delete_many(list(values)[:500], noreply=False) is True
    assert set(client.get_many(list(values))) == set(list(values)[500:])


def noreply(client):
    for i in range(2000):
        client.set("quiet", b"%d" % i, noreply=True)
    client.incr("quiet", 1, noreply=True)
    assert client.get("quiet") == b"2000"
    client.delete("quiet", noreply=True)
    client.touch("quiet", 9, noreply=True)
    assert client.get("quiet") is None


def cas_loops(address):
    """Eight threads add 100 each to one number, by gets and cas alone."""
    Client(address).set("counter", b"0", noreply=False)

    def add():
        client = Client(address, no_delay=True)
        for _ in range(100):
            while True:
                value, token = client.gets("counter")
                if client.cas("counter", b"%d" % (int(value) + 1), token, noreply=False):
                    break

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client = Client(address)
    assert client.get("counter") == b"800"
    assert client.cas("nokey", b"x", b"1", noreply=False) is None
    value, token = client.gets("counter")
    client.set("counter", b"9", noreply=False)
    assert client.cas("counter", b"10", token, noreply=False) is False


def arithmetic(client):
    client.set("n", b"10", noreply=False)
    assert client.incr("n", 5) == 15
    assert client.decr("n", 20) == 0
    assert client.incr("missing", 1) is None
    client.set("n", b"18446744073709551615", noreply=False)
    assert client.incr("n", 2) == 1
    client.set("text", b"ten", noreply=False)
    try:
        client.incr("text", 1)
        raise AssertionError("incremented a word")
    except MemcacheClientError as error:
        assert "non-numeric" in str(error)


def big_values(client):
    value = bytes(i * 31 % 251 for i in range(MEGABYTE - 100))
    assert client.set("big", value, noreply=False) and client.get("big") == value
    assert client.append("big", b"z" * 10, noreply=False)
    assert client.get("big") == value + b"z" * 10
    try:
        client.set("big", b"x" * (MEGABYTE + 1), noreply=False)
        raise AssertionError("stored more than -I")
    except MemcacheServerError as error:
        assert "too large" in str(error)
    assert client.get("big") is None, "a refused set leaves the old value"
    assert client.get("a") == b"1"


def keys(client):
    longest = "k" * 250
    assert client.set(longest, b"long", noreply=False) and client.get(longest) == b"long"
    try:
        client.get("k" * 251)
        raise AssertionError("took a key of 251 bytes")
    except MemcacheIllegalInputError:
        pass
    unicode_client = Client(client.server, allow_unicode_keys=True)
    assert unicode_client.set("schlüssel", b"\xc3\xbc", noreply=False) and unicode_client.get("schlüssel") == b"\xc3\xbc"


def expiry(client):
    assert client.set("later", b"kept", expire=5, noreply=False)
    assert client.set("read", b"kept", expire=5, noreply=False)
    assert client.set("past", b"gone", expire=-1, noreply=False) and client.get("past") is None
    assert client.touch("later", 100, noreply=False) is True
    assert client.raw_command("gat 100 read", end_tokens=b"END\r\n") == b"VALUE read 0 4\r\nkept\r\n"
    assert client.raw_command("gats 100 read", end_tokens=b"END\r\n").startswith(b"VALUE read 0 4 ")
    assert client.touch("missing", 100, noreply=False) is False
    # When this one is gone, the others would be, too.
    assert client.set("soon", b"gone", expire=5, noreply=False)
    gone(client.get, "soon")
    assert client.get_many(["soon", "later", "read"]) == {"later": b"kept", "read": b"kept"}


def serialisers(address):
    client = Client(address, serde=serde.pickle_serde)
    values = {"s": "text", "i": 12345678901234567890, "l": [1, {"a": (2, None)}], "b": b"raw", "f": 1.5}
    client.set_many(values, noreply=False)
    assert client.get_many(list(values)) == values
    squeezed = Client(address, serde=serde.compressed_serde)
    squeezed.set("zip", "x" * 500_000, noreply=False)
    assert squeezed.get("zip") == "x" * 500_000
    assert len(Client(address).get("zip")) < 10_000


def admin(client):
    assert client.version().startswith(b"1.6.")
    stats = client.stats()
    assert stats[b"threads"] == 4 and stats[b"curr_items"] > 0
    assert client.stats("settings")[b"maxconns"] == 1024
    assert client.stats("items") and client.stats("slabs")
    assert client.cache_memlimit(64) is True
    client.flush_all(noreply=False)
    assert client.get("a") is None


def meta(client):
    """The client has no meta commands of its own; its raw form carries them."""
    assert client.raw_command("ms m 2 T60 F7\r\nhi") == b"HD"
    assert client.raw_command("mg m s f t v", end_tokens=b"hi\r\n").split()[:3] == [b"VA", b"2", b"s2"]
    assert client.raw_command("mg missing v") == b"EN"
    assert client.raw_command("ma num N0 J5 v", end_tokens=b"5\r\n").startswith(b"VA 1")
    assert client.raw_command("md m q\r\nmn") == b"MN"
    assert client.raw_command("mg m") == b"EN"


def pooled(address):
    client = PooledClient(address, max_pool_size=8, no_delay=True)
    right = []

    def work(number):
        for i in range(200):
            client.set(f"p{number}", b"%d" % i, noreply=False)
            right.append(client.get(f"p{number}") == b"%d" % i)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(right) == 1600 and all(right)
    client.close()


def ring():
    with Servers(3) as servers:
        nodes = [("127.0.0.1", server.port) for server in servers]
        client = HashClient(nodes, use_pooling=True, retry_attempts=0, dead_timeout=600, ignore_exc=True, timeout=PATIENCE)
        values = {f"ring:{i}": b"%d" % i for i in range(3000)}
        assert client.set_many(values, noreply=False) == []
        assert client.get_many(list(values)) == values
        held = [server.keys() for server in servers]
        assert sum(map(len, held)) == 3000 and min(map(len, held)) > 300, [len(h) for h in held]
        assert client.incr("ring:41", 1) == 42
        servers[0].stop()
        del servers[0]
        for _ in range(3):
            client.get_many(list(values))
        for key, value in values.items():
            client.set(key, value, noreply=False)
        assert client.get_many(list(values)) == values, "the survivors take over"
        client.close()


def tls():
    """The same by TLS, which Python's OpenSSL speaks."""
    for server, context in over_tls():
        client = Client(
            ("localhost", server.port), tls_context=context, connect_timeout=PATIENCE, timeout=PATIENCE
        )
        for part in (stores, many, noreply, arithmetic, big_values):
            part(client)
        client.quit()


def main():
    with Servers(1) as servers:
        address = ("127.0.0.1", servers[0].port)
        client = Client(address, no_delay=True, connect_timeout=PATIENCE, timeout=PATIENCE)
        for part in (stores, many, noreply, arithmetic, big_values, keys, expiry, meta):
            part(client)
        cas_loops(address)
        serialisers(address)
        pooled(address)
        patient = RetryingClient(client, attempts=2)
        assert patient.get("p0") == b"199"
        admin(client)
        client.quit()
    ring()
    tls()


if __name__ == "__main__":
    main()
