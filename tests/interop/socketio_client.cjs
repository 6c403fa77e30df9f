// Socket.IO clients that begin by polling and upgrade to a WebSocket. Prints the names of the servers
// that they met, as JSON; fails if a client meets two or if anything comes back different.
//
//     node socketio_client.cjs URL COUNT
//
// Each is a user of its own: by cookies, by the address in X-Forwarded-For, and by the argument `user`.
"use strict";

const assert = require("node:assert");
const { io } = require("socket.io-client");

const [url, count] = process.argv.slice(2);

// A promise of an event; a failure to connect breaks it.
function event(socket, name) {
  return new Promise((resolve, reject) => {
    socket.once(name, (...values) => resolve(values));
    socket.once("connect_error", reject);
  });
}

async function user(number) {
  const socket = io(url, {
    transports: ["polling", "websocket"],
    forceNew: true,
    reconnection: false,
    withCredentials: true,
    rejectUnauthorized: false,
    perMessageDeflate: { threshold: 0 },
    query: { user: `u${number}` },
    extraHeaders: { "X-Forwarded-For": `198.51.${number}.7` },
  });
  await event(socket, "connect");
  const name = await socket.emitWithAck("who");
  // The upgrade may have happened before anybody could wait for it.
  const { engine } = socket.io;
  if (engine.transport.name !== "websocket") await event(engine, "upgrade");
  assert.strictEqual(engine.transport.name, "websocket");

  for (const size of [0, 1, 1000, 70_000, 1 << 20]) {
    const values = [Buffer.alloc(size, number), "é".repeat(size / 2), { size, list: [1, null, "x"] }];
    const answer = event(socket, "echo");
    socket.emit("echo", ...values);
    assert.deepStrictEqual(await answer, values);
  }
  const end = event(socket, "disconnect");
  socket.emit("leave");
  assert.strictEqual((await end)[0], "io server disconnect");
  return name;
}

async function main() {
  const names = new Set();
  for (let number = 1; number <= Number(count); number++) names.add(await user(number));
  console.log(JSON.stringify([...names].sort()));
}

// Waiting for what never comes ends a program too.
process.exitCode = 1;
main().then(() => { process.exitCode = 0; });
