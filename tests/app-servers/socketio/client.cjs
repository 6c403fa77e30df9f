// client.cjs URL
const { io } = require("socket.io-client");

const url = process.argv[2].replace(/^ws/, "http");
const blob = require("crypto").randomBytes(100000);
const event = (emitter, name) => new Promise((resolve) => emitter.once(name, resolve));

async function speak(name, transports) {
  const tell = (line) => console.log(`${name}: ${line}`);
  const socket = io(url, { transports, forceNew: true, reconnection: false });
  socket.once("connect_error", (error) => {
    console.error(error);
    process.exit(1);
  });
  const upgraded = new Promise((resolve) => {
    socket.io.once("open", () => socket.io.engine.once("upgrade", resolve));
  });
  socket.on("disconnect", (reason, details) => {
    if (reason !== "io server disconnect") console.error(reason, details);
  });
  await event(socket, "connect");
  tell(`connected by ${transports[0]}`);
  if (transports.length > 1) tell(`upgraded to ${(await upgraded).name}`);
  tell(`acknowledged ${JSON.stringify(await socket.emitWithAck("say", { text: "hello" }))}`);
  const mirrored = Buffer.from(await socket.emitWithAck("mirror", blob));
  tell(`binary ${mirrored.length} bytes, ${mirrored.equals(blob) ? "intact" : "broken"}`);
  const room = event(socket, "room");
  socket.emit("join", `room of ${socket.id}`);
  tell(`room says ${await room}`);
  const ended = event(socket, "disconnect");
  socket.emit("leave");
  tell(`disconnected: ${await ended}`);
}

(async () => {
  await speak("websocket only", ["websocket"]);
  await speak("polling only", ["polling"]);
  await speak("polling, then websocket", ["polling", "websocket"]);
  process.exit(0);
})();
