// Two phones that register and write to each other: client.cjs URL
const { WebSocket } = require("ws");

global.WebSocket = WebSocket;
const JsSIP = require("jssip");

const url = process.argv[2];
const long = "x".repeat(8000);

function phone(name) {
  const socket = new JsSIP.WebSocketInterface(url);
  const ua = new JsSIP.UA({ sockets: [socket], uri: `sip:${name}@localhost`, register: false, session_timers: false });
  const next = (event) => new Promise((resolve) => ua.once(event, resolve));
  const failed = (event) => (data) => {
    console.error(name, event, data.cause || data.reason || data);
    process.exit(1);
  };
  ua.on("registrationFailed", failed("registrationFailed"));
  return {
    ua,
    next,
    async begin() {
      const connected = next("connected");
      ua.start();
      await connected;
      console.log(`${name}: connected, subprotocol ${socket._ws.protocol}`);
      const registered = next("registered");
      ua.register();
      await registered;
      console.log(`${name}: registered`);
    },
    message(target, text) {
      return new Promise((resolve) => {
        const answered = ({ response, cause }) => resolve(response ? response.status_code : cause);
        ua.sendMessage(`sip:${target}@localhost`, text, { eventHandlers: { succeeded: answered, failed: answered } });
      });
    },
    options() {
      return new Promise((resolve) => {
        const answered = ({ response, cause }) =>
          resolve(response ? `${response.status_code} from ${response.getHeader("Server")}` : cause);
        ua.sendOptions("sip:localhost", null, { eventHandlers: { succeeded: answered, failed: answered } });
      });
    },
  };
}

(async () => {
  const anna = phone("anna");
  const berta = phone("berta");
  await anna.begin();
  await berta.begin();
  console.log(`OPTIONS: ${await anna.options()}`);
  for (const text of ["hello", long]) {
    const arrived = berta.next("newMessage");
    const answered = anna.message("berta", text);
    const { request } = await arrived;
    const shown = request.body === long ? `${long.length} characters` : request.body;
    console.log(`berta: message from ${request.from.uri.user}: ${shown}`);
    console.log(`anna: message delivered: ${await answered}`);
  }
  console.log(`anna: message to nobody: ${await anna.message("nobody", "hello")}`);
  const gone = [anna.next("unregistered"), berta.next("unregistered")];
  anna.ua.unregister();
  berta.ua.unregister();
  await Promise.all(gone);
  console.log("unregistered");
  process.exit(0);
})();
