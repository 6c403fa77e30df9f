// Publishes to itself: faye_client.cjs URL
const faye = require("faye");

const url = process.argv[2].replace(/^ws/, "http") + "/bayeux";
const trust = process.env.NODE_EXTRA_CA_CERTS && require("fs").readFileSync(process.env.NODE_EXTRA_CA_CERTS);
const long = "x".repeat(50000);

async function speak(transport, disabled) {
  const tell = (line) => console.log(`${transport}: ${line}`);
  const client = new faye.Client(url, { tls: { ca: trust } });
  if (disabled) client.disable(disabled);
  const channel = `/room/${process.pid}`;
  const messages = [];
  let awake = () => {};
  await client.subscribe(channel, (message) => {
    messages.push(message);
    awake();
  });
  tell(`subscribed by ${client._dispatcher._transport.connectionType}`);
  const next = async () => {
    while (!messages.length) await new Promise((resolve) => (awake = resolve));
    return messages.shift();
  };
  await client.publish(channel, { text: "hello" });
  tell(`received ${JSON.stringify(await next())}`);
  await client.publish(channel, { text: long });
  const { text } = await next();
  tell(text === long ? `received ${text.length} characters` : "received something else");
  await client.disconnect();
}

(async () => {
  // A handshake by polling comes first, as in browsers.
  await speak("any");
  await speak("no websocket", "websocket");
  process.exit(0);
})();
