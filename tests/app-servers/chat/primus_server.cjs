// primus_server.cjs PORT
const http = require("http");
const Primus = require("primus");

const server = http.createServer();
const primus = new Primus(server, { transformer: "websockets", pathname: "/primus" });
primus.on("connection", (spark) => {
  spark.on("data", (data) => (data === "end" ? spark.end() : spark.write(data)));
});
server.listen(Number(process.argv[2]), "127.0.0.1");
