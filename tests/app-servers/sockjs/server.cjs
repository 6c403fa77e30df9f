// server.cjs PORT
const http = require("http");
const sockjs = require("sockjs");

const echo = sockjs.createServer({ log: () => {} });
echo.on("connection", (socket) => {
  socket.on("data", (text) => (text === "end" ? socket.close(3000, "bye") : socket.write(text)));
});
const server = http.createServer();
echo.installHandlers(server, { prefix: "/echo" });
server.listen(Number(process.argv[2]), "127.0.0.1");
