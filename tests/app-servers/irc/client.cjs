// Two people in a channel: client.cjs URL
const { WebSocket } = require("ws");
const IRC = require("irc-framework");
const transport = require("irc-framework/src/transports/websocket");

// InspIRCd wants an Origin, which browsers send and programs do not, and from an address in
// `proxyranges` the client's; wssgate puts its own in the place of this one.
global.WebSocket = class extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, { origin: "http://chat.example.test", headers: { "X-Real-IP": "127.0.0.1" } });
  }
};

const { hostname, port, protocol } = new URL(process.argv[2]);
const long = "x".repeat(350);

function person(nick) {
  const client = new IRC.Client();
  const events = [];
  let awake = () => {};
  for (const name of ["registered", "join", "topic", "privmsg", "whois", "quit", "socket close"]) {
    client.on(name, (event) => {
      events.push([name, event]);
      awake();
    });
  }
  client.on("socket close", (event) => console.error(nick, "closed", event?.message));
  client.on("raw", ({ line }) => console.error(nick, line));
  const heard = async (name, fits = () => true) => {
    for (;;) {
      const at = events.findIndex(([seen, event]) => seen === name && fits(event));
      if (at >= 0) return events.splice(at, 1)[0][1];
      await new Promise((resolve) => (awake = resolve));
    }
  };
  const tls = protocol === "wss:";
  client.connect({ host: hostname, port: Number(port), tls, nick, auto_reconnect: false, transport });
  return { client, heard };
}

(async () => {
  const anna = person("anna");
  await anna.heard("registered");
  console.log(`anna: registered, network ${anna.client.network.name || anna.client.network.options.NETWORK}`);
  const berta = person("berta");
  await berta.heard("registered");
  console.log(`berta: registered, network ${berta.client.network.name || berta.client.network.options.NETWORK}`);
  anna.client.join("#room");
  await anna.heard("join", ({ nick }) => nick === "anna");
  anna.client.setTopic("#room", "A topic");
  console.log(`anna: topic set to ${(await anna.heard("topic", ({ topic }) => topic)).topic}`);
  berta.client.join("#room");
  await anna.heard("join", ({ nick }) => nick === "berta");
  console.log(`berta: sees the topic ${(await berta.heard("topic", ({ topic }) => topic)).topic}`);
  for (const text of ["hello", long, "größe"]) {
    berta.client.say("#room", text);
    const { nick, message } = await anna.heard("privmsg");
    console.log(`anna: hears ${nick}: ${message === long ? `${message.length} characters` : message}`);
  }
  berta.client.whois("berta");
  const { actual_ip, actual_hostname, hostname: host } = await berta.heard("whois");
  console.log(`whois: berta's real host is ${actual_ip || actual_hostname || host}`);
  berta.client.quit("bye");
  const { nick, message } = await anna.heard("quit");
  console.log(`${nick}: quit: ${message}`);
  process.exit(0);
})();
