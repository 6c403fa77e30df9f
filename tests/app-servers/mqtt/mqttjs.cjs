// Publishes to itself by both versions of the protocol: mqttjs.cjs PATH [VERSIONS] URL
const mqtt = require("mqtt");

const [path, ...rest] = process.argv.slice(2);
const url = rest.pop();
const versions = (rest[0] || "4,5").split(",").map(Number);

async function speak(protocolVersion) {
  const tell = (line) => console.log(`version ${protocolVersion}: ${line}`);
  const client = await mqtt.connectAsync(url + path, { protocolVersion, reconnectPeriod: 0 });
  tell("connected");
  const received = new Promise((resolve) => {
    client.once("message", (topic, body, packet) => resolve({ topic, body, packet }));
  });
  const [granted] = await client.subscribeAsync("app/#", { qos: 1 });
  tell(`subscribed ${granted.topic} qos ${granted.qos}`);
  await client.publishAsync("app/1", "from node", { qos: 1 });
  const { topic, body, packet } = await received;
  tell(`received ${topic} qos ${packet.qos}: ${body}`);
  await client.endAsync();
  tell("ended");
}

(async () => {
  for (const version of versions) await speak(version);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
