// server.cjs PORT
const http = require("http");
const { Server } = require("socket.io");

const server = http.createServer();
const io = new Server(server);
io.on("connection", (socket) => {
  socket.on("say", (message, answer) => answer({ ...message, from: "server" }));
  socket.on("mirror", (bytes, answer) => answer(bytes));
  socket.on("join", (room) => {
    socket.join(room);
    io.to(room).emit("room", "to all");
  });
  socket.on("leave", () => socket.disconnect());
});
server.listen(Number(process.argv[2]), "127.0.0.1");
