#!/usr/bin/env bash
# Mosquitto 2.0.11 (Debian 12) writes a message to a subscriber on a WebSocket in pieces of 4,096 bytes,
# one every 100 ms: large messages arrive at 40 kB/s, however fast the network is. The same message for
# the same subscriber on a listener for plain MQTT takes some milliseconds. Who sees it with a proxy
# between will look for the reason in the proxy.
#
# Seen: 100,000 bytes arrive after 2.5 s on the WebSocket, after less than 0.1 s on plain TCP.
set -euo pipefail
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server"; wait "$server" || true; } 2>/dev/null; rm -rf "$work"' EXIT
cd "$work"
mkdir -p archives/partial
apt-get -qq -y -o Debug::NoLocking=1 -o "Dir::Cache::archives=$work/archives" --no-install-recommends \
    --download-only install mosquitto=2.0.11-1.2+deb12u2 >/dev/null 2>&1
for archive in archives/*.deb; do dpkg -x "$archive" debian; done
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check paho-mqtt==2.2.0

read -r plain websocket < <(python3 -c '
import socket
ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(port.getsockname()[1] for port in ports))')
printf '%s\n' "listener $plain 127.0.0.1" "listener $websocket 127.0.0.1" 'protocol websockets' \
    'allow_anonymous true' "user $(id -un)" >mosquitto.conf
LD_LIBRARY_PATH=$work/debian/usr/lib/x86_64-linux-gnu debian/usr/sbin/mosquitto -c mosquitto.conf >log 2>&1 &
server=$!
cat >receive.py <<'PYTHON'
import queue, socket, sys, time
import paho.mqtt.client as mqtt

def joined(transport, port):
    limit = time.monotonic() + 30
    while time.monotonic() < limit:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    client, events = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, transport=transport), queue.Queue()
    client.on_connect = client.on_subscribe = client.on_message = lambda *event: events.put(event)
    client.connect("127.0.0.1", port)
    client.loop_start()
    events.get(timeout=30)
    return client, events

def seconds(transport, port):
    """From the acknowledgement of a message to its arrival."""
    sender, _ = joined("tcp", int(sys.argv[1]))
    receiver, events = joined(transport, port)
    receiver.subscribe("a")
    events.get(timeout=30)
    sender.publish("a", bytes(100_000), qos=1).wait_for_publish(30)
    began = time.monotonic()
    _, _, message = events.get(timeout=60)
    assert len(message.payload) == 100_000
    for client in (sender, receiver):
        client.disconnect()
        client.loop_stop()
    return time.monotonic() - began

plain, websocket = seconds("tcp", int(sys.argv[1])), seconds("websockets", int(sys.argv[2]))
print(f"plain: {plain:.2f} s, websocket: {websocket:.2f} s")
# 100,000 bytes are 24 whole pieces of 4,096 and a rest.
sys.exit(not (websocket >= 2.2 and plain < 1))
PYTHON
venv/bin/python receive.py "$plain" "$websocket" || {
    cat log
    echo 'changed: Mosquitto 2.0.11 serves WebSockets at another pace' >&2
    exit 1
}
echo 'as described'
