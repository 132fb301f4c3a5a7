"""Clients that log in: python-binary-memcached, pylibmc and memjs over SASL (-S), pymemcache over the text protocol (-Y).

Each with the right password and with a wrong one. A client that is not installed, or was built without SASL, is named
and left out, unless CLIENTS_REQUIRED=1.
"""

import glob
import importlib.util
import os
import subprocess
import tempfile

from servers import PATIENCE, Servers

MEMJS = """
const memjs = require('memjs');
const log_in = (password) => memjs.Client.create('127.0.0.1:' + process.env.PORT,
    { username: 'alice', password, timeout: 60, retries: 0, logger: { log: () => {} } });
(async () => {
  const client = log_in('secret');
  await client.set('memjs', 'value', {});
  const { value } = await client.get('memjs');
  if (String(value) !== 'value') throw new Error('memjs read ' + value);
  client.close();
  const stranger = log_in('wrong');
  let read = null;
  try { read = (await stranger.get('memjs')).value; } catch (error) { read = null; }
  if (read !== null) throw new Error('memjs read with a wrong password');
  stranger.close();
})().catch((error) => { console.error(error); process.exit(1); });
"""


def has(module):
    if importlib.util.find_spec(module):
        return True
    left_out(f"{module} is not here")
    return False


def left_out(why):
    print(f"clients: {why}", flush=True)
    if os.environ.get("CLIENTS_REQUIRED") == "1":
        raise SystemExit(1)


def binary(server):
    if not has("bmemcached"):
        return
    import bmemcached

    client = bmemcached.Client((server.address,), "alice", "secret", socket_timeout=PATIENCE)
    assert client.set("b", "value") and client.get("b") == "value"
    client.disconnect_all()
    stranger = bmemcached.Client((server.address,), "alice", "wrong", socket_timeout=PATIENCE)
    try:
        assert stranger.get("b") is None
    except bmemcached.exceptions.MemcachedException as error:
        assert "Auth" in str(error) or error.code == 0x20, error
    stranger.disconnect_all()


def libmemcached(server):
    if not has("pylibmc"):
        return
    # Published builds bring libsasl, and look for its mechanisms where Debian has none.
    plain = glob.glob("/usr/lib*/*/sasl2/libplain.so") + glob.glob("/usr/lib*/sasl2/libplain.so")
    if plain:
        os.environ.setdefault("SASL_PATH", os.path.dirname(plain[0]))
    import pylibmc

    if not pylibmc.support_sasl or not plain:
        left_out("pylibmc has no SASL here")
        return
    client = pylibmc.Client([server.address], binary=True, username="alice", password="secret")
    assert client.set("p", "value") and client.get("p") == "value"
    stranger = pylibmc.Client([server.address], binary=True, username="alice", password="wrong")
    try:
        assert stranger.get("p") is None
    except pylibmc.Error:
        pass


def memjs(server):
    if subprocess.call(["node", "-e", "require('memjs')"], stderr=subprocess.DEVNULL):
        left_out("memjs is not here")
        return
    subprocess.run(["node", "-e", MEMJS], env={**os.environ, "PORT": str(server.port)}, check=True, timeout=PATIENCE)


def text(server):
    if not has("pymemcache"):
        return
    from pymemcache.client.base import Client
    from pymemcache.exceptions import MemcacheClientError

    client = Client(("127.0.0.1", server.port), timeout=PATIENCE)
    for command in (lambda: client.get("a"), lambda: client.set("any", "alice wrong", noreply=False)):
        try:
            command()
            raise AssertionError("a stranger was served")
        except MemcacheClientError:
            pass
    assert client.set("any", "alice secret", noreply=False)
    assert client.set("t", "value", noreply=False) and client.get("t") == b"value"
    client.close()


def main():
    with tempfile.TemporaryDirectory() as folder:
        passwords = os.path.join(folder, "passwords")
        with open(passwords, "w") as file:
            file.write("alice:secret\n")
        with Servers(1, "-S", env={"MEMCACHED_SASL_PWDB": passwords}) as servers:
            for client in (binary, libmemcached, memjs):
                client(servers[0])
        with Servers(1, "-Y", passwords) as servers:
            text(servers[0])


if __name__ == "__main__":
    main()
