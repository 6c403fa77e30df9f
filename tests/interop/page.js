// A WebSocket client in a browser: tries all that server.cjs can do and a page can see, and fails if
// anything differs. It talks to the server that the page is from.
(async () => {
  const base = location.origin.replace("http", "ws");
  const sizes = [0, 1, 125, 126, 127, 65535, 65536, 1 << 20];

  function check(what, got, expected) {
    if (got !== expected) throw new Error(`${what}: ${got} instead of ${expected}`);
  }

  async function open(path) {
    const socket = new WebSocket(base + path);
    socket.binaryType = "arraybuffer";
    const messages = [];
    let wake = () => {};
    socket.onmessage = (event) => { messages.push(event.data); wake(); };
    socket.next = async () => {
      while (messages.length === 0) await new Promise((resolve) => { wake = resolve; });
      return messages.shift();
    };
    socket.ended = new Promise((resolve) => {
      socket.onclose = ({ code, reason, wasClean }) => resolve(`${code} ${wasClean} ${reason}`);
    });
    await new Promise((resolve, reject) => { socket.onopen = resolve; socket.onerror = () => reject(new Error(path)); });
    socket.onerror = null;
    check("extensions", /permessage-deflate/.test(socket.extensions), true);
    return socket;
  }

  // What no compression shortens much; a call fills 64 KiB at most.
  function bytes(size) {
    const data = new Uint8Array(size);
    for (let i = 0; i < size; i += 65536) crypto.getRandomValues(data.subarray(i, i + 65536));
    return data;
  }

  const hex = (data) => Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");

  const echo = await open("/echo");
  for (const size of sizes) {
    const data = bytes(size), texts = [hex(data).slice(0, size), "é".repeat(size / 2)];
    echo.send(data);
    for (const text of texts) echo.send(text);
    check(`${size} bytes`, hex(new Uint8Array(await echo.next())), hex(data));
    for (const text of texts) check(`${size} bytes of text`, await echo.next() === text, true);
  }
  echo.close(3001, "the client ✓");
  check("our close", await echo.ended, "3001 true the client ✓");

  const pinged = await open("/ping");
  pinged.send("ping me");
  check("pong", await pinged.next(), "pong are you there?");
  pinged.close();
  check("a close without a code", await pinged.ended, "1005 true ");

  const closed = await open(`/close/4002/${encodeURIComponent("the server ✓")}`);
  closed.send("close me");
  check("their close", await closed.ended, "4002 true the server ✓");

  const aborted = await open("/abort");
  aborted.send("cut me off");
  check("cut off", await aborted.ended, "1006 false ");
  return "all good";
})()
