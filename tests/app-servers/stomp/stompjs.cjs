// Sends to itself over a queue of its own: stompjs.cjs PATH URL
const { Client } = require("@stomp/stompjs");
const { WebSocket } = require("ws");

const [path, url] = process.argv.slice(2);
const queue = `/queue/wssgate-${process.pid}`;
const blob = "0123456789".repeat(20000);
const client = new Client({
  webSocketFactory: () => new WebSocket(url + path, ["v12.stomp", "v11.stomp", "v10.stomp"]),
  reconnectDelay: 0,
});

client.onConnect = (frame) => {
  const { version, server } = frame.headers;
  console.log(`connected: version ${version}, server ${server}, heart-beat ${frame.headers["heart-beat"]}`);
  client.watchForReceipt("subscribed", () => {
    console.log("receipt: subscribed");
    client.publish({ destination: queue, body: "hello", headers: { "x-kind": "greeting" } });
  });
  client.subscribe(queue, onMessage, { receipt: "subscribed", "auto-delete": "true" });
};

function onMessage(message) {
  if (message.body === "hello") {
    console.log(`message: hello, x-kind ${message.headers["x-kind"]}`);
    client.publish({ destination: queue, body: blob });
  } else {
    console.log(`message: ${message.body.length} bytes, ${message.body === blob ? "intact" : "broken"}`);
    // STOMP lets a server end the session after an ERROR; RabbitMQ leaves it open on a WebSocket.
    client.publish({ destination: "/nowhere/x", body: "" });
  }
}

client.onStompError = (frame) => {
  console.log(`error: ${frame.headers.message}`);
  client.deactivate();
};
client.onWebSocketClose = (event) => {
  console.log(`closed: ${event.code} ${event.reason}`);
  process.exit(0);
};
client.onWebSocketError = (error) => {
  console.error(error.message);
  process.exit(1);
};
client.activate();
