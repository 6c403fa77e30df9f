// Writes to itself: xmppjs.cjs PATH USER URL
global.WebSocket = require("ws").WebSocket;
const { client, xml } = require("@xmpp/client");

const [path, user, url] = process.argv.slice(2);
const account = { username: user, password: `secret-${user}` };
const xmpp = client({ service: url + path, domain: "localhost", resource: "app", ...account });
const long = "x".repeat(50000);
const self = `${user}@localhost/app`;
const write = (text) => xmpp.send(xml("message", { to: self, type: "chat" }, xml("body", {}, text)));

xmpp.on("error", (error) => {
  console.error(error);
  process.exit(1);
});
xmpp.on("stanza", async (stanza) => {
  if (!stanza.is("message")) return;
  const text = stanza.getChildText("body");
  const from = stanza.attrs.from === self ? "self" : stanza.attrs.from;
  console.log(`message from ${from}: ${text === long ? `${text.length} characters` : text}`);
  if (text === long) await xmpp.stop();
  else await write(long);
});
xmpp.on("online", async (address) => {
  console.log(`online: ${address.toString().replace(/-\w+@/, "@")}`);
  await xmpp.send(xml("presence"));
  const answer = await xmpp.iqCaller.request(xml("iq", { type: "get", to: "localhost" }, xml("ping", "urn:xmpp:ping")));
  console.log(`ping: ${answer.attrs.type}`);
  await write("hello");
});
xmpp.on("offline", () => {
  console.log("offline");
  process.exit(0);
});
xmpp.start().catch((error) => {
  console.error(error);
  process.exit(1);
});
