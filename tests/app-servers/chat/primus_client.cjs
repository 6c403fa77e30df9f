// primus_client.cjs URL
const Primus = require("primus");

const Socket = Primus.createSocket({ transformer: "websockets", pathname: "/primus" });
const socket = new Socket(process.argv[2].replace(/^ws/, "http"), { strategy: false });
const long = "x".repeat(50000);

socket.on("open", () => {
  console.log("open");
  socket.write({ said: "hello" });
});
socket.on("data", (data) => {
  if (data === long) {
    console.log(`data: ${data.length} characters`);
    socket.write("end");
  } else {
    console.log(`data: ${JSON.stringify(data)}`);
    socket.write(long);
  }
});
socket.on("error", (error) => console.error(error));
socket.on("end", () => console.log("end"));
