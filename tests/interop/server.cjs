// A WebSocket server with node's ws, compression on. Prints its port, then how each connection ended, as JSON.
//
// /echo returns messages; /ping pings and says what came back; /close/CODE/REASON closes; /abort cuts
// the connection off. All but the first wait for a message.
"use strict";

const { WebSocketServer } = require("ws");

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: 0,
  perMessageDeflate: { threshold: 0 },
  maxPayload: 16 << 20,
});

server.on("connection", (socket, request) => {
  const [, what, code, reason] = request.url.split("/").map(decodeURIComponent);
  socket.on("message", (data, binary) => {
    if (what === "echo") socket.send(data, { binary });
    if (what === "ping") socket.ping("are you there?");
    if (what === "close") socket.close(Number(code), reason);
    if (what === "abort") socket.terminate();
  });
  socket.on("pong", (payload) => socket.send(`pong ${payload}`));
  // A connection that was cut off.
  socket.on("error", () => {});
  socket.on("close", (code, reason) => {
    console.log(JSON.stringify({ path: request.url, code, reason: String(reason) }));
  });
});
server.on("listening", () => console.log(server.address().port));
