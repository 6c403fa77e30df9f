"""What the recipes share: packages, processes, wssgate before an app server, and one dialogue by three ways."""

import base64
import contextlib
import difflib
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
DOCUMENT = HERE.parent.parent / "docs" / "app-servers.md"
PATIENCE = 90  # seconds for a server to start or a dialogue to end
GRACE = 3  # seconds for a process to end when asked to

CONF = """
daemon off;
pid {work}/wssgate.pid;
error_log {work}/error.log info;
events {{}}
http {{
    access_log {work}/access.log;
    client_body_temp_path {work}/body;
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        '' close;
    }}
    server {{
        listen 127.0.0.1:{plain};
        listen 127.0.0.1:{tls} ssl;
        server_name localhost;
        ssl_certificate {work}/server.pem;
        ssl_certificate_key {work}/server.key;
{locations}
    }}
}}
"""

# Debian's packages are laid over this machine's directories where only the server sees it, with its
# own process numbers, so that what it starts ends with it.
OVERLAY = """
for part in usr etc var; do
    [ -d "$0/$part" ] || continue
    mount -t overlay overlay -o "lowerdir=$0/$part:/$part,upperdir=$0.up/$part,workdir=$0.wk/$part" "/$part"
done
exec "$@"
"""

RECIPES = []


class Failed(Exception):
    """What a recipe saw was not what it expects."""


def recipe(name):
    """Marks a function as the recipe of one app server; it gets a `Kit`."""

    def register(function):
        RECIPES.append((name, function))
        return function

    return register


def free_port():
    """A port that the kernel has just found free."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Kit:
    """One app server and wssgate before it, with a directory for all their files. Both end with it."""

    def __init__(self, kind, work, binary):
        # wssgate lets go of root and buffers bodies below it.
        work.chmod(0o755)
        self.kind, self.work, self.binary = kind, work, binary
        self.here = HERE / kind
        self.servers, self.clients, self.surprises = [], [], []
        self.processes = contextlib.ExitStack()
        self.environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", NODE_NO_WARNINGS="1")
        self.plain = self.tls = self.errors = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.processes.close()

    # Packages.

    def pip(self, *pins, clients=(), servers=()):
        """A Python with these packages; those named are told as client or server."""
        venv = self.work / "venv"
        python = venv / "bin" / "python"
        self.command(sys.executable, "-m", "venv", venv)
        self.command(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins, patience=600)
        seen = dict(line.split("==") for line in self.command(python, "-m", "pip", "freeze").split() if "==" in line)
        seen = {name.lower().replace("_", "-"): version for name, version in seen.items()}
        self.compare(dict(pin.split("==") for pin in pins), seen, clients, servers)
        return python

    def npm(self, *pins, clients=(), servers=()):
        """Installs packages for Node; their install scripts do not run."""
        place = self.work / "node"
        place.mkdir()
        (place / "package.json").write_text('{"private": true}')
        npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--save-exact"]
        self.command(*npm, *pins, cwd=place, patience=600)
        modules = place / "node_modules"
        self.environment["NODE_PATH"] = str(modules)
        pinned = dict(pin.rsplit("@", 1) for pin in pins)
        version = 'console.log(JSON.parse(require("fs").readFileSync(process.argv[1])).version)'
        seen = {
            name: self.command("node", "-e", version, modules / name / "package.json").strip() for name in pinned
        }
        self.compare(pinned, seen, clients, servers)

    def debian(self, servers, *more):
        """Debian's packages below the work directory, and the beginning of command lines that see them.

        Nothing is installed: the packages and what they need besides are unpacked, and no service starts.
        `servers` maps packages to the versions that were seen when the recipe was written.
        """
        root, archives = self.work / "debian", self.work / "archives"
        (archives / "partial").mkdir(parents=True)
        apt = ["apt-get", "--quiet", "--yes", "-o", "Debug::NoLocking=1", "-o", f"Dir::Cache::archives={archives}"]
        self.command(*apt, "--no-install-recommends", "--download-only", "install", *servers, *more, patience=600)
        for archive in sorted(archives.glob("*.deb")):
            self.command("dpkg", "-x", archive, root)
        # Older packages have files outside /usr, where this machine has links.
        for name in ["bin", "sbin", "lib", "lib64"]:
            if (root / name).is_dir():
                shutil.copytree(root / name, root / "usr" / name, symlinks=True, dirs_exist_ok=True)
        for part in ["usr", "etc", "var"]:
            (root / part).mkdir(parents=True, exist_ok=True)
            for layer in ["up", "wk"]:
                (self.work / f"debian.{layer}" / part).mkdir(parents=True)
        seen = {}
        for archive in archives.glob("*.deb"):
            name, version = self.command("dpkg-deb", "--showformat", "${Package} ${Version}", "--show", archive).split()
            seen[name] = version
        for name in servers:
            if name not in seen:
                seen[name] = self.command("dpkg-query", "--showformat", "${Version}", "--show", name)
        self.compare(servers, seen, (), list(servers)[:1])
        namespaces = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
        if os.getuid() != 0:
            namespaces[1:1] = ["--user", "--map-root-user"]
        return [*namespaces, "--mount-proc", "sh", "-euc", OVERLAY, str(root)]

    def compare(self, pinned, seen, clients, servers):
        """Keeps the versions that the table tells, and says which are not those of the recipe."""
        seen = {name: seen.get(name.lower().split("[")[0].replace("_", "-"), seen.get(name)) for name in pinned}
        for name, version in pinned.items():
            if seen[name] != version:
                print(f"note: {name} is {seen[name]}, the recipe was written for {version}", flush=True)
        self.servers += [f"{name} {seen[name]}" for name in servers]
        self.clients += [f"{name} {seen[name]}" for name in clients]

    # Processes.

    def command(self, *argv, patience=PATIENCE, text=None, **options):
        """Runs a program to its end and returns what it prints; its failure is ours."""
        options = {"env": self.environment, **options}
        child = subprocess.Popen(
            [str(word) for word in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True, **options,
        )  # fmt: skip
        with contextlib.ExitStack() as ended:
            ended.callback(end, child)
            try:
                out, errors = child.communicate(text, timeout=patience)
                self.errors = errors
            except subprocess.TimeoutExpired as late:
                said = b"".join(part or b"" for part in (late.stdout, late.stderr)).decode(errors="replace")
                raise Failed(f"{argv[0]} … {argv[-1]} does not end; it said:\n{said}") from None
        if child.returncode != 0:
            raise Failed(f"{' '.join(map(str, argv))} ended with {child.returncode}:\n{out}{errors}")
        return out

    def start(self, name, *argv, port=None, line=None, **options):
        """Starts a server, and waits until it listens on `port` or has written `line` into its log."""
        log = self.work / f"{name}.log"
        options = {"env": self.environment, "cwd": self.work, **options}
        with open(log, "ab") as out:
            process = subprocess.Popen(
                [str(word) for word in argv], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True, **options,
            )  # fmt: skip
        self.processes.callback(end, process)
        self.until(lambda: (port is None or listens(port)) and (line is None or line in read(log)), name, process)
        return process

    def until(self, happened, name, process=None):
        """Waits for an event that only asking can tell."""
        limit = time.monotonic() + PATIENCE
        while not happened():
            ended = process and process.poll()
            if ended is not None or time.monotonic() > limit:
                raise Failed(f"{name} does not come up (status {ended}):\n{read(self.work / f'{name}.log')[-3000:]}")
            time.sleep(0.05)

    # wssgate.

    def block(self, port):
        """The configuration in docs/app-servers.md that names this port."""
        blocks = re.findall(r"^```nginx\n(.*?)^```", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
        found = [block for block in blocks if f"127.0.0.1:{port}" in block]
        if len(found) != 1:
            raise Failed(f"{len(found)} blocks of {DOCUMENT.name} name 127.0.0.1:{port}")
        return found[0]

    def gate(self, **servers):
        """Starts wssgate with the documented configuration of `p9001=PORT`: where the app server is today."""
        self.certificates()
        locations = []
        for documented, port in servers.items():
            documented = documented.removeprefix("p")
            locations.append(self.block(documented).replace(f"127.0.0.1:{documented}", f"127.0.0.1:{port}"))
        self.plain, self.tls = free_port(), free_port()
        conf = self.work / "nginx.conf"
        text = {"work": self.work, "plain": self.plain, "tls": self.tls, "locations": "".join(locations)}
        conf.write_text(CONF.format(**text))
        self.command(self.binary, "-t", "-p", self.work, "-e", self.work / "error.log", "-c", conf)
        self.start("wssgate", self.binary, "-p", self.work, "-e", self.work / "error.log", "-c", conf, port=self.tls)

    def certificates(self):
        """A development CA, and its certificate for localhost."""
        at = {name: self.work / name for name in ["ca.pem", "ca.key", "server.pem", "server.key", "request", "names"]}
        new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        ca = ["-subj", "/CN=development CA", "-keyout", at["ca.key"], "-out", at["ca.pem"]]
        self.command(*new, "-x509", "-days", "2", *ca)
        self.command(*new, "-subj", "/CN=localhost", "-keyout", at["server.key"], "-out", at["request"])
        at["names"].write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
        self.command(
            "openssl", "x509", "-req", "-days", "2", "-in", at["request"], "-CA", at["ca.pem"], "-CAkey", at["ca.key"],
            "-CAcreateserial", "-extfile", at["names"], "-out", at["server.pem"],
        )  # fmt: skip
        self.environment.update(NODE_EXTRA_CA_CERTS=str(at["ca.pem"]), SSL_CERT_FILE=str(at["ca.pem"]))

    def ways(self, port):
        """The same server directly and through wssgate: what to call the way, and its address with ws or wss."""
        yield "direct", f"ws://127.0.0.1:{port}"
        yield "ws", f"ws://127.0.0.1:{self.plain}"
        yield "wss", f"wss://localhost:{self.tls}"

    # Dialogues.

    def dialogue(self, port, name, *argv, expect):
        """Runs a client by all ways, with the address behind its command line; each must print `expect`.

        `{way}` in the command line is the name of the way, for what must not exist twice.
        """
        expect = [line.strip() for line in expect.strip().splitlines()]
        for way, url in self.ways(port):
            words = [str(word).replace("{way}", way) for word in argv]
            seen = [line.strip() for line in self.command(*words, url).splitlines()]
            if seen != expect:
                difference = "\n".join(difflib.unified_diff(expect, seen, "expected", way, lineterm=""))
                raise Failed(f"{name}, {way}:\n{difference}\n{self.errors}{read(self.work / 'error.log')[-2000:]}")
        print(f"  {name}: {len(expect)} lines, the same direct, with ws and with wss", flush=True)

    def answer(self, port, path, offers, expect, odd=False, headers=(), ways=("direct", "ws", "wss")):
        """Asks for a WebSocket by these ways and compares status and subprotocol with `expect`.

        `expect` is for wssgate and `odd` says that its error log must name the subprotocol; without
        wssgate the same answer must come, or None where the server only closes and wssgate says 502.
        """
        for way, url in self.ways(port):
            if way not in ways:
                continue
            wanted = None if way == "direct" and expect == (502, None) else expect
            seen = handshake(url, path, offers, self.work / "ca.pem", headers)
            if seen != wanted:
                raise Failed(f"{offers!r} offered, {way}: answered {seen}, expected {wanted}")
        if odd:
            line = "upstream sent an unusual 101 response: it selects the subprotocol"
            self.until(lambda: read(self.work / "error.log").count(line) >= 2, "wssgate")
        said = f"status {expect[0]}" if expect[0] != 101 else f"subprotocol {expect[1]!r}"
        print(f"  offered {offers!r}: {said}" + (", told as odd in the error log" if odd else ""), flush=True)


def handshake(url, path, offers, ca, headers):
    """Status and subprotocol of an answer; None if the server closes without one."""
    scheme, host, port = re.fullmatch(r"(wss?)://(.*):(\d+)", url).groups()
    with contextlib.ExitStack() as opened:
        wire = opened.enter_context(socket.create_connection((host, int(port)), timeout=PATIENCE))
        if scheme == "wss":
            context = ssl.create_default_context(cafile=str(ca))
            wire = opened.enter_context(context.wrap_socket(wire, server_hostname=host))
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", f"Host: localhost:{port}", "Upgrade: websocket", "Connection: Upgrade",
                 f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", *headers]  # fmt: skip
        if offers is not None:
            lines.append(f"Sec-WebSocket-Protocol: {offers}")
        wire.sendall("\r\n".join([*lines, "", ""]).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            try:
                piece = wire.recv(4096)
            except ConnectionResetError:
                piece = b""
            if not piece:
                return None
            head += piece
    status = int(head.split(b" ", 2)[1])
    chosen = re.search(rb"^sec-websocket-protocol:[ \t]*(.*?)[ \t]*\r$", head, re.IGNORECASE | re.MULTILINE)
    return status, chosen and chosen.group(1).decode()


def listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def read(path):
    return path.read_text(errors="replace") if path.exists() else ""


def end(process):
    """Ends a process and what it has started in its own session."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
            break
    # The group may have outlived its first process.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
