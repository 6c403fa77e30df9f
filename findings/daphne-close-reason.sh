#!/usr/bin/env bash
# daphne 4.2.3 sends the code of an ASGI `websocket.close` to the client and drops its `reason`, which ASGI
# has had since version 2.3 of its WebSocket specification. By the letter it may: it announces no
# `spec_version`. But Django Channels, which it is made for, passes on the reason of
# `self.close(code=4000, reason="bye")` without looking, and nobody warns. uvicorn 0.54.0 sends both.
#
# Seen: 4000 without a reason from daphne, 4000 with "bye" from uvicorn, same application.
set -euo pipefail
work=$(mktemp -d)
servers=()
trap 'for each in "${servers[@]}"; do kill "$each"; wait "$each" || true; done 2>/dev/null; rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check daphne==4.2.3 uvicorn==0.54.0 websockets==16.0
cat >app.py <<'PYTHON'
async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4000, "reason": "bye"})
PYTHON
read -r first second < <(python3 -c '
import socket
ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(port.getsockname()[1] for port in ports))')
venv/bin/python -m daphne -b 127.0.0.1 -p "$first" app:app >log 2>&1 &
servers+=($!)
venv/bin/python -m uvicorn --lifespan off --host 127.0.0.1 --port "$second" app:app >>log 2>&1 &
servers+=($!)
cat >ask.py <<'PYTHON'
import sys, time
import websockets
from websockets.sync.client import connect

for name, port in zip(["daphne", "uvicorn"], sys.argv[1:]):
    limit = time.monotonic() + 30
    while True:
        try:
            wire = connect(f"ws://127.0.0.1:{port}/")
            break
        except ConnectionRefusedError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.05)
    try:
        wire.recv(timeout=30)
    except websockets.ConnectionClosed as closed:
        print(f"{name}: {closed.rcvd.code} {closed.rcvd.reason!r}")
PYTHON
seen=$(venv/bin/python ask.py "$first" "$second") || { cat log; exit 1; }
printf '%s\n' "$seen"
expected="daphne: 4000 ''
uvicorn: 4000 'bye'"
[ "$seen" = "$expected" ] || { echo 'changed: these servers close otherwise' >&2; exit 1; }
echo 'as described'
