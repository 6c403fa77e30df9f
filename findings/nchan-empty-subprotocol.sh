#!/usr/bin/env bash
# Nchan 1.3.6 (Debian 12, in nginx) answers a WebSocket that offers subprotocols it does not know with
# an empty `Sec-WebSocket-Protocol`. RFC 6455 §4.2.2 wants no such field then, and says that an empty one
# is not the same; clients must fail the connection (§4.1), and node's ws 8.23.0 does. Without an offer
# there is no field.
#
# Seen: `Sec-WebSocket-Protocol: ` in the answer to an offer of "chat"; ws refuses it.
set -euo pipefail
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server"; wait "$server" || true; } 2>/dev/null; rm -rf "$work"' EXIT
cd "$work"
mkdir -p archives/partial logs
apt-get -qq -y -o Debug::NoLocking=1 -o "Dir::Cache::archives=$work/archives" --reinstall --no-install-recommends \
    --download-only install libnginx-mod-nchan=1:1.3.6+dfsg-2 nginx >/dev/null 2>&1
for archive in archives/*.deb; do dpkg -x "$archive" debian; done
npm install --silent --no-audit --no-fund --prefix "$work" ws@8.23.0 >/dev/null
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >nginx.conf <<CONF
load_module $work/debian/usr/lib/nginx/modules/ngx_nchan_module.so;
daemon off;
master_process off;
pid $work/pid;
error_log $work/log;
events {}
http {
    access_log off;
    client_body_temp_path $work/body;
    proxy_temp_path $work/proxy;
    fastcgi_temp_path $work/fastcgi;
    uwsgi_temp_path $work/uwsgi;
    scgi_temp_path $work/scgi;
    server {
        listen 127.0.0.1:$port;
        location / { nchan_subscriber websocket; nchan_channel_id a; }
    }
}
CONF
chmod 755 "$work"
LD_LIBRARY_PATH=$work/debian/usr/lib/x86_64-linux-gnu debian/usr/sbin/nginx -p "$work" -e log -c nginx.conf 2>>log &
server=$!
cat >ask.cjs <<'NODE'
const net = require("net");
const { WebSocket } = require("ws");
const port = Number(process.argv[2]);

const ready = async () => {
  for (const limit = Date.now() + 30000; Date.now() < limit; ) {
    const open = await new Promise((resolve) => {
      const wire = net.connect(port, "127.0.0.1");
      wire.on("connect", () => resolve(wire.end())).on("error", () => resolve(false));
    });
    if (open !== false) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
};
const ask = (offers) =>
  new Promise((resolve) => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/`, offers);
    let field;
    socket.on("upgrade", (answer) => (field = JSON.stringify(answer.headers["sec-websocket-protocol"])));
    socket.on("open", () => resolve(`${field}, open`));
    socket.on("error", (error) => resolve(`${field}, ${error.message}`));
  });
(async () => {
  await ready();
  console.log(`chat offered: ${await ask(["chat"])}`);
  console.log(`nothing offered: ${await ask([])}`);
  process.exit(0);
})();
NODE
seen=$(NODE_PATH=$work/node_modules node ask.cjs "$port") || { cat log; exit 1; }
printf '%s\n' "$seen"
expected='chat offered: "", Server sent an invalid subprotocol
nothing offered: undefined, open'
[ "$seen" = "$expected" ] || { cat log; echo 'changed: Nchan 1.3.6 answers otherwise' >&2; exit 1; }
echo 'as described'
