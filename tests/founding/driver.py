"""Runs one founding set-up with one program and writes what happened as JSON.

    unshare --mount --net --pid --fork --mount-proc --kill-child python3 driver.py …

It must run in namespaces of its own: it brings up loopback, puts a copy of /etc over /etc with
other hosts and certificates in it, and listens on 443 and 80. Nothing of it stays.
"""

import argparse
import asyncio
import json
import pathlib
import shutil
import signal
import subprocess
import sys
from ssl import TLSVersion

import client
from app import App
from normalise import access_log, error_log, normalise
from server import Server

HERE = pathlib.Path(__file__).parent
PATIENCE = 180  # seconds for all of it
HOSTS = """\
127.0.0.1 localhost test.enzhico.net board.xncoding.com
::1 localhost
"""
# Founding files, the host that clients ask for, and whether they use TLS.
SET_UPS = {
    "direct": (["direct"], "test.enzhico.net", True),
    "two-hops": (["gateway", "edge"], "test.enzhico.net", True),
    "gateway": (["gateway"], "board.xncoding.com", False),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("set_up", choices=SET_UPS)
    parser.add_argument("binary")
    parser.add_argument("directory", type=pathlib.Path, help="empty, for all files of this run")
    for name in ("ca", "chain", "key"):
        parser.add_argument(f"--{name}", required=True, help="PEM file")
    options = parser.parse_args()
    signal.alarm(PATIENCE)
    private_machine(options)
    files, host, tls = SET_UPS[options.set_up]
    servers = {
        name: Server(options.binary, options.directory / name, HERE / f"{name}.conf")
        for name in files
    }
    target = client.Target(host, tls, options.ca)
    try:
        transcript = asyncio.run(dialogue(target, servers))
    except BaseException:
        for name, server in servers.items():
            print(f"--- error log of {name}\n{server.log('error.log')}", file=sys.stderr)
        raise
    (options.directory / "transcript.json").write_text(json.dumps(transcript, indent=1))


def private_machine(options):
    """Loopback, and an /etc with the names and certificates of the set-up."""
    etc = options.directory / "etc"
    shutil.copytree("/etc", etc, symlinks=True, ignore_dangling_symlinks=True)
    (etc / "hosts").write_text(HOSTS)
    live = etc / "letsencrypt" / "live" / "test.enzhico.net"
    live.mkdir(parents=True, exist_ok=True)
    shutil.copy(options.chain, live / "fullchain.pem")
    shutil.copy(options.key, live / "privkey.pem")
    for name in ("options-ssl-nginx.conf", "ssl-dhparams.pem"):
        shutil.copy(HERE / name, etc / "letsencrypt")
    subprocess.run(["mount", "--bind", etc, "/etc"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


async def dialogue(target, servers):
    """All that is said and logged."""
    app = App()
    await app.start()
    for server in servers.values():
        server.start()
    transcript = {
        "http": await client.ordinary(target, app),
        "websocket": await client.dialogues(target, app),
    }
    if target.tls:
        # Without `ssl_protocols` nginx 1.22 offers no TLS 1.3 yet, nginx 1.31 and wssgate do.
        versions = [TLSVersion.TLSv1_2] + [TLSVersion.TLSv1_3] * ("edge" in servers)
        transcript["tls"] = await asyncio.to_thread(client.tls, target, versions)
        if "edge" in servers:
            transcript["ciphers"] = await asyncio.to_thread(client.ciphers, target)
        await app.take()
    await app.stop()
    transcript["without app"] = await client.without_app(target, app)
    for server in servers.values():
        server.stop()
    transcript = normalise(transcript)
    for name, server in servers.items():
        log = server.log("error.log")
        transcript[f"access log of {name}"] = access_log(server.log("access.log"))
        transcript[f"error log of {name}"] = error_log(log)
        if name != "edge":
            refused = "connect() failed (111: Connection refused) while connecting to upstream"
            lines = [line for line in log.splitlines() if refused in line]
            for address in ("[::1]", "127.0.0.1"):
                named = any(f"http://{address}:8282" in line for line in lines)
                transcript[f"error log of {name} names {address}"] = named
    return transcript


if __name__ == "__main__":
    main()
