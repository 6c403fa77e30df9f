#!/usr/bin/env bash
# RabbitMQ 3.10.8 (Debian 12) with rabbitmq_web_mqtt answers a WebSocket that offers several subprotocols
# with all of them ("mqtt, mqttv3.1"), where RFC 6455 §4.2.2 wants one. A client that checks the answer
# must fail the connection, and node's ws 8.23.0 does, although the broker speaks what it offers.
#
# Seen: the whole list in the answer; ws refuses it, and opens when it offers "mqtt" alone.
set -euo pipefail
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill -KILL "$server"; wait "$server" || true; } 2>/dev/null; rm -rf "$work"' EXIT
cd "$work"
mkdir -p archives/partial home usr/upper usr/work
apt-get -qq -y -o Debug::NoLocking=1 -o "Dir::Cache::archives=$work/archives" --no-install-recommends \
    --download-only install rabbitmq-server=3.10.8-1.1+deb12u1 >/dev/null 2>&1
for archive in archives/*.deb; do dpkg -x "$archive" debian; done
npm install --silent --no-audit --no-fund --prefix "$work" ws@8.23.0 >/dev/null
read -r port mqtt amqp distribution epmd < <(python3 -c '
import socket
ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(5)]
print(*(port.getsockname()[1] for port in ports))')
cat >home/rabbitmq.conf <<CONF
listeners.tcp.local = 127.0.0.1:$amqp
mqtt.listeners.tcp.local = 127.0.0.1:$mqtt
web_mqtt.tcp.ip = 127.0.0.1
web_mqtt.tcp.port = $port
CONF
echo '[rabbitmq_web_mqtt].' >home/plugins
export HOME=$work/home RABBITMQ_MNESIA_BASE=$work/home/data RABBITMQ_LOG_BASE=$work/home
export RABBITMQ_CONFIG_FILE=$work/home/rabbitmq.conf RABBITMQ_ENABLED_PLUGINS_FILE=$work/home/plugins
export RABBITMQ_NODENAME=finding$port@localhost RABBITMQ_DIST_PORT=$distribution RABBITMQ_PID_FILE=$work/home/pid
export ERL_EPMD_PORT=$epmd ERL_EPMD_ADDRESS=127.0.0.1
# Erlang's paths are fixed, so the packages are laid over /usr where only the server sees it. With its
# process numbers its own, what it starts ends with it.
[ "$(id -u)" = 0 ] || user='--user --map-root-user'
unshare ${user:-} --mount --propagation private --pid --fork --kill-child --mount-proc sh -euc '
    mount -t overlay overlay -o "lowerdir=$0/debian/usr:/usr,upperdir=$0/usr/upper,workdir=$0/usr/work" /usr
    exec /usr/lib/rabbitmq/bin/rabbitmq-server' "$work" >log 2>&1 &
server=$!
limit=$((SECONDS + 90))
until (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    if ! kill -0 "$server" || [ "$SECONDS" -gt "$limit" ]; then cat log; exit 1; fi
    sleep 0.1
done
cat >ask.cjs <<'NODE'
const { WebSocket } = require("ws");
const ask = (offers) =>
  new Promise((resolve) => {
    const socket = new WebSocket(`ws://127.0.0.1:${process.argv[2]}/ws`, offers);
    let field;
    socket.on("upgrade", (answer) => (field = answer.headers["sec-websocket-protocol"]));
    socket.on("open", () => resolve(`answered ${field}, ws: open`));
    socket.on("error", (error) => resolve(`answered ${field}, ws: ${error.message}`));
  });
(async () => {
  console.log(await ask(["mqtt", "mqttv3.1"]));
  console.log(await ask(["mqtt"]));
  process.exit(0);
})();
NODE
seen=$(NODE_PATH=$work/node_modules node ask.cjs "$port")
printf '%s\n' "$seen"
expected='answered mqtt,mqttv3.1, ws: Server sent an invalid subprotocol
answered mqtt, ws: open'
[ "$seen" = "$expected" ] || { echo 'changed: RabbitMQ 3.10.8 answers otherwise' >&2; exit 1; }
echo 'as described'
