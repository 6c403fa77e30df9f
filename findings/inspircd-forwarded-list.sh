#!/usr/bin/env bash
# InspIRCd 3.15.0 (Debian 12) behind a proxy in `proxyranges` answers 400 to a WebSocket whose
# `X-Forwarded-For` names more than one address, as it does behind two proxies that each add theirs
# (the usual form of this header: client, proxy1, …). It reads the whole value as a single address.
# `X-Real-IP`, which it looks for first, or a list of one is taken.
#
# Seen: 101 for one address, 400 "malformed real IP address" for two, 400 for none.
set -euo pipefail
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || { kill "$server"; wait "$server" || true; } 2>/dev/null; rm -rf "$work"' EXIT
cd "$work"
mkdir -p archives/partial
apt-get -qq -y -o Debug::NoLocking=1 -o "Dir::Cache::archives=$work/archives" --no-install-recommends \
    --download-only install inspircd=3.15.0-1 >/dev/null 2>&1
for archive in archives/*.deb; do dpkg -x "$archive" debian; done
port=$(python3 -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >inspircd.conf <<CONF
<config format="xml">
<server name="irc.example.test" description="A server" network="Test">
<admin name="Nobody" nick="nobody" email="nobody@example.test">
<path configdir="$work" datadir="$work" logdir="$work" runtimedir="$work"
      moduledir="$work/debian/usr/lib/inspircd/modules">
<bind address="127.0.0.1" port="$port" type="clients" hook="websocket">
<module name="sha1"> <module name="websocket">
<websocket sendastext="yes" proxyranges="127.0.0.1">
<wsorigin allow="*">
<connect allow="*" resolvehostnames="no" useident="no">
CONF
[ "$(id -u)" != 0 ] || root=--runasroot
LD_LIBRARY_PATH=$work/debian/usr/lib/x86_64-linux-gnu debian/usr/sbin/inspircd \
    --config "$work/inspircd.conf" --nofork --nopid ${root:-} >log 2>&1 &
server=$!
cat >ask.py <<'PYTHON'
import socket, sys, time

def ask(*headers):
    limit = time.monotonic() + 30
    while True:
        try:
            wire = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=30)
            break
        except ConnectionRefusedError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.05)
    head = ["GET / HTTP/1.1", "Host: a.test", "Origin: http://a.test", "Upgrade: websocket", "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", *headers, "", ""]
    wire.sendall("\r\n".join(head).encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += wire.recv(4096)
    status = answer.split()[1].decode()
    while status != "101" and (more := wire.recv(4096)):
        answer += more
    return status if status == "101" else f"{status} {answer.partition(bytes((13, 10)) * 2)[2].decode()}"

print("one address:", ask("X-Forwarded-For: 192.0.2.1"))
print("two addresses:", ask("X-Forwarded-For: 192.0.2.1, 192.0.2.2"))
print("two addresses, and X-Real-IP:", ask("X-Forwarded-For: 192.0.2.1, 192.0.2.2", "X-Real-IP: 192.0.2.1"))
print("no address:", ask())
PYTHON
seen=$(python3 ask.py "$port") || { cat log; exit 1; }
printf '%s\n' "$seen"
expected='one address: 101
two addresses: 400 WebSocket: Received a proxied HTTP request that sent a malformed real IP address
two addresses, and X-Real-IP: 101
no address: 400 WebSocket: Received a proxied HTTP request that did not send a real IP address header'
[ "$seen" = "$expected" ] || { echo 'changed: InspIRCd 3.15.0 reads these headers otherwise' >&2; exit 1; }
echo 'as described'
