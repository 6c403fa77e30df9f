// Publishes by HTTP and receives on a socket: client.cjs CHANNEL URL
const { WebSocket } = require("ws");

const [channel, url] = process.argv.slice(2);
const page = url.replace(/^ws/, "http");
const long = "x".repeat(100000);
const socket = new WebSocket(`${url}/sub?id=${channel}`, "ws+meta.nchan");
const messages = [];
let awake = () => {};
socket.on("message", (data) => {
  messages.push(data.toString());
  awake();
});
socket.on("error", (error) => {
  console.error(error);
  process.exit(1);
});
const event = (name) => new Promise((resolve) => socket.once(name, (...what) => resolve(what)));

async function received() {
  while (!messages.length) await new Promise((resolve) => (awake = resolve));
  const [head, ...body] = messages.shift().split("\n\n");
  const text = body.join("\n\n");
  const type = /content-type: (.*)/.exec(head);
  return `${text === long ? `${text.length} characters` : text}${type ? `, content-type ${type[1]}` : ""}`;
}

(async () => {
  await event("open");
  console.log(`subscribed: subprotocol ${socket.protocol}`);
  for (const body of ["hello", long]) {
    const headers = { "Content-Type": "text/plain", Accept: "text/json" };
    const answer = await fetch(`${page}/pub?id=${channel}`, { method: "POST", body, headers });
    console.log(`published: ${answer.status}, ${(await answer.json()).subscribers} subscriber`);
    console.log(`received: ${await received()}`);
  }
  socket.send("from a socket");
  console.log(`sent by the subscriber and received: ${await received()}`);
  const closed = event("close");
  console.log(`deleted: ${(await fetch(`${page}/pub?id=${channel}`, { method: "DELETE" })).status}`);
  const [code, reason] = await closed;
  console.log(`closed: ${code} ${reason}`);
})();
