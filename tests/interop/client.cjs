// A WebSocket client with node's ws: tries all that server.cjs can do, and fails if anything differs.
//
//     node client.cjs URL
"use strict";

const assert = require("node:assert");
const { once } = require("node:events");
const { WebSocket } = require("ws");

const base = process.argv[2];
const sizes = [0, 1, 125, 126, 127, 65535, 65536, 1 << 20];

async function open(path) {
  // No threshold: small messages are compressed too.
  const perMessageDeflate = { threshold: 0 };
  const socket = new WebSocket(base + path, { perMessageDeflate, rejectUnauthorized: false });
  socket.messages = [];
  socket.on("message", (data, binary) => socket.messages.push(binary ? data : String(data)));
  socket.ended = new Promise((resolve) => {
    socket.on("close", (code, reason) => resolve({ code, reason: String(reason) }));
  });
  await once(socket, "open");
  assert.match(socket.extensions, /permessage-deflate/);
  return socket;
}

async function receive(socket) {
  while (socket.messages.length === 0) await once(socket, "message");
  return socket.messages.shift();
}

// What no compression shortens much, and the same each time.
function bytes(size) {
  let state = size + 1;
  return Buffer.from(Array.from({ length: size }, () => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return state >>> 24;
  }));
}

async function main() {
  const echo = await open("/echo");
  for (const size of sizes) {
    const messages = [bytes(size), bytes(size).toString("base64").slice(0, size), "é".repeat(size / 2)];
    for (const message of messages) echo.send(message);
    for (const message of messages) assert.deepStrictEqual(await receive(echo), message);
  }
  for (const [part, fin] of [["in ", false], ["three ", false], ["pieces", true]]) echo.send(part, { fin });
  assert.strictEqual(await receive(echo), "in three pieces");
  echo.ping("anybody?");
  assert.strictEqual(String((await once(echo, "pong"))[0]), "anybody?");
  echo.close(3001, "the client ✓");
  assert.deepStrictEqual(await echo.ended, { code: 3001, reason: "the client ✓" });

  const pinged = await open("/ping");
  pinged.send("ping me");
  assert.strictEqual(await receive(pinged), "pong are you there?");
  pinged.terminate();
  assert.strictEqual((await pinged.ended).code, 1006);

  const closed = await open(`/close/4002/${encodeURIComponent("the server ✓")}`);
  closed.send("close me");
  assert.deepStrictEqual(await closed.ended, { code: 4002, reason: "the server ✓" });

  const aborted = await open("/abort");
  aborted.on("error", () => {});
  aborted.send("cut me off");
  assert.deepStrictEqual(await aborted.ended, { code: 1006, reason: "" });
}

// Waiting for what never comes ends a program too.
process.exitCode = 1;
main().then(() => { process.exitCode = 0; });
