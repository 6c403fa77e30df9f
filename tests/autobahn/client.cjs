// Runs all cases of the suite's server, one after another, and asks it for the results.
//
//     node client.cjs URL AGENT
"use strict";

const { WebSocket } = require("ws");
const unlimited = require("./unlimited.cjs");

const [base, agent] = process.argv.slice(2);

// Opens a WebSocket and waits for its end.
function visit(path, onMessage) {
  return new Promise((resolve) => {
    const socket = new WebSocket(base + path, { rejectUnauthorized: false, ...unlimited });
    socket.on("message", (data, binary) => onMessage(socket, data, binary));
    // What the suite does wrong ends this connection only.
    socket.on("error", () => {});
    socket.on("close", resolve);
  });
}

async function main() {
  let count = 0;
  await visit("/getCaseCount", (_, data) => { count = Number(data); });
  const echo = (socket, data, binary) => socket.send(data, { binary });
  for (let i = 1; i <= count; i++) await visit(`/runCase?case=${i}&agent=${agent}`, echo);
  await visit(`/updateReports?agent=${agent}`, () => {});
}

main();
