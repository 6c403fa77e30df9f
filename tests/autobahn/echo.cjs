// An echo server that obeys RFC 6455 and has no limits of its own. Prints its port.
"use strict";

const { WebSocketServer } = require("ws");
const unlimited = require("./unlimited.cjs");

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, ...unlimited });
server.on("connection", (socket) => {
  // What the suite does wrong ends its connection only.
  socket.on("error", () => {});
  socket.on("message", (data, binary) => socket.send(data, { binary }));
});
server.on("listening", () => console.log(server.address().port));
