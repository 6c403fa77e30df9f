// A Socket.IO server with compression on. Prints its port.
//
//     node socketio_server.cjs NAME
//
// It says its name in an acknowledgement, returns what else comes, and disconnects who asks for it.
"use strict";

const http = require("node:http");
const { Server } = require("socket.io");

const server = http.createServer();
const io = new Server(server, {
  perMessageDeflate: { threshold: 0 },
  httpCompression: { threshold: 0 },
  maxHttpBufferSize: 16 << 20,
});

io.on("connection", (socket) => {
  socket.on("who", (answer) => answer(process.argv[2]));
  socket.on("echo", (...values) => socket.emit("echo", ...values));
  socket.on("leave", () => socket.disconnect(true));
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
