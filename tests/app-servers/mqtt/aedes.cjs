// A broker in Node: aedes.cjs PORT
const http = require("http");
const { Aedes } = require("aedes");
const { WebSocketServer, createWebSocketStream } = require("ws");

(async () => {
  const broker = await Aedes.createBroker();
  const server = http.createServer();
  new WebSocketServer({ server }).on("connection", (socket, request) => {
    broker.handle(createWebSocketStream(socket), request);
  });
  server.listen(Number(process.argv[2]), "127.0.0.1");
})();
