// faye_server.cjs PORT
const http = require("http");
const faye = require("faye");

const server = http.createServer();
new faye.NodeAdapter({ mount: "/bayeux", timeout: 20 }).attach(server);
server.listen(Number(process.argv[2]), "127.0.0.1");
