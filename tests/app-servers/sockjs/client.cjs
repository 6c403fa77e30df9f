// client.cjs URL
const SockJS = require("sockjs-client");

const url = process.argv[2].replace(/^ws/, "http") + "/echo";
const long = "x".repeat(50000);

function speak(transport) {
  return new Promise((resolve) => {
    const tell = (line) => console.log(`${transport}: ${line}`);
    const socket = new SockJS(url, null, { transports: [transport] });
    socket.onopen = () => {
      tell("open");
      socket.send("hello");
    };
    socket.onmessage = ({ data }) => {
      if (data === "hello") {
        tell("echo hello");
        socket.send(long);
      } else {
        tell(data === long ? `echo ${data.length} characters` : "something else");
        socket.send("end");
      }
    };
    socket.onclose = ({ code, reason }) => {
      tell(`closed ${code} ${reason}`);
      resolve();
    };
  });
}

(async () => {
  for (const transport of ["websocket", "xhr-streaming", "eventsource", "xhr-polling"]) await speak(transport);
  process.exit(0);
})();
