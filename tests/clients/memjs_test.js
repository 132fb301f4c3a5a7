// memjs: the binary protocol from Node, one server and three. Ports come in $PORTS.
'use strict';

const assert = require('node:assert');
const memjs = require('memjs');

const ports = process.env.PORTS.split(' ');

async function stores(client) {
  assert.strictEqual(await client.set('a', 'text', { expires: 100 }), true);
  const { value, flags } = await client.get('a');
  assert.strictEqual(value.toString(), 'text');
  assert.strictEqual(flags.readUInt32BE(0), 0);
  assert.strictEqual(await client.add('a', 'x', {}), false);
  assert.strictEqual(await client.add('new', 'x', {}), true);
  assert.strictEqual(await client.replace('nothing', 'x', {}), false);
  assert.strictEqual(await client.replace('new', 'y', {}), true);
  assert.strictEqual(await client.append('new', 'z'), true);
  // This client's prepend sends the opcode of append.
  assert.strictEqual(await client.prepend('new', 'x'), true);
  assert.ok(['xyz', 'yzx'].includes((await client.get('new')).value.toString()));
  assert.strictEqual(await client.delete('new'), true);
  assert.strictEqual(await client.delete('new'), false);
  assert.strictEqual((await client.get('new')).value, null);
}

async function arithmetic(client) {
  assert.strictEqual((await client.increment('n', 5, { initial: 100 })).value, 100);
  assert.strictEqual((await client.increment('n', 5, {})).value, 105);
  assert.strictEqual((await client.decrement('n', 6, {})).value, 99);
  assert.strictEqual((await client.decrement('n', 1000, {})).value, 0);
}

async function values(client) {
  const big = Buffer.alloc(1024 * 1024 - 200);
  for (let i = 0; i < big.length; i++) big[i] = (i * 31) % 251;
  assert.strictEqual(await client.set('big', big, {}), true);
  assert.ok((await client.get('big')).value.equals(big));
  const raw = Buffer.from([0, 13, 10, 255, 0x80, 0x81]);
  await client.set('raw', raw, {});
  assert.ok((await client.get('raw')).value.equals(raw));
  // Requests in flight together are answered each with its own value.
  const names = Array.from({ length: 500 }, (_, i) => `many:${i}`);
  await Promise.all(names.map((name) => client.set(name, `value of ${name}`, {})));
  const got = await Promise.all(names.map((name) => client.get(name)));
  got.forEach((answer, i) => assert.strictEqual(answer.value.toString(), `value of ${names[i]}`));
}

async function expiry(client) {
  await client.set('later', 'x', { expires: 5 });
  assert.strictEqual(await client.touch('later', 100), true);
  assert.strictEqual(await client.touch('missing', 100), false);
  // When this one is gone, the other would be, too.
  await client.set('soon', 'x', { expires: 5 });
  for (let wait = 0; (await client.get('soon')).value !== null; wait++) {
    assert.ok(wait < 600, 'soon does not expire');
    await new Promise((done) => setTimeout(done, 100));
  }
  assert.strictEqual((await client.get('later')).value.toString(), 'x');
}

// `stats` and `version` answer by callback, once per server.
function stats(client, port) {
  return new Promise((done, fail) => client.stats((error, server, answer) => {
    if (error) return fail(error);
    assert.ok(server.endsWith(`:${port}`), server);
    assert.strictEqual(answer.threads, '4');
    assert.ok(Number(answer.curr_items) > 0);
    return done();
  }));
}

async function main() {
  const client = memjs.Client.create(`127.0.0.1:${ports[0]}`, { timeout: 60 });
  for (const part of [stores, arithmetic, values, expiry]) await part(client);
  await stats(client, ports[0]);
  await client.flush();
  assert.strictEqual((await client.get('a')).value, null);
  client.close();

  const ring = memjs.Client.create(ports.map((port) => `127.0.0.1:${port}`).join(','), { timeout: 60 });
  const names = Array.from({ length: 300 }, (_, i) => `ring:${i}`);
  for (const name of names) await ring.set(name, name, {});
  for (const name of names) assert.strictEqual((await ring.get(name)).value.toString(), name);
  ring.close();
}

main().catch((error) => { console.error(error); process.exit(1); });
