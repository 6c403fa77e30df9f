"""The processes of a run: hops of wssgate with all routes through them, and how programs are installed."""

import contextlib
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
NODE = HERE.parent / "node"
PATIENCE = 60  # seconds for a program to start

HOP = """
daemon off;
pid {directory}/pid;
error_log {directory}/error.log info;
events {{}}
http {{
    access_log {directory}/access.log;
    ssl_certificate {directory}/../cert.pem;
    ssl_certificate_key {directory}/../key.pem;
    client_body_temp_path {directory}/body;
    {directives}
{servers}
}}
"""
SERVER = """
    server {{
        listen 127.0.0.1:{port}{ssl};
        location / {{ proxy_pass {upstream}; }}
    }}
"""


def install(work):
    """The interpreter with the suite, and the environment in which node finds its packages."""
    needs = HERE / "requirements.txt"
    venv = work / "venv"
    python, stamp = venv / "bin" / "python", venv / "installed.txt"
    if not stamp.exists() or stamp.read_text() != needs.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", needs], check=True)
        shutil.copy(needs, stamp)
    modules = subprocess.run([NODE / "install"], check=True, stdout=subprocess.PIPE, text=True)
    return python, dict(os.environ, NODE_PATH=modules.stdout.strip(), PYTHONWARNINGS="ignore")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def await_port(port, process):
    """Waits until somebody listens."""
    end = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"{process.args[0]} does not listen on {port}")
        time.sleep(0.05)


class Stage:
    """The processes of a run, in a directory for their files. They end with it."""

    def __init__(self, directory, python, environment):
        self.directory, self.python, self.environment = directory, python, environment
        self.processes = contextlib.ExitStack()
        key, cert = directory / "key.pem", directory / "cert.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", cert],
            check=True, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.processes.close()

    def file(self, name):
        return self.directory / name

    def start(self, name, command, **options):
        """Starts a process whose output goes into a log."""
        log = self.processes.enter_context(open(self.directory / f"{name}.log", "ab"))
        options = {"stdout": log, "stderr": log, **options}
        process = subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, **options)
        self.processes.callback(end, process)
        return process

    def suite(self, name, *arguments):
        """Starts the suite; see suite.py."""
        return self.start(name, [self.python, HERE / "suite.py", *arguments])

    def hop(self, name, binary, directives, ways):
        """Starts wssgate with a server for each way, a pair of TLS and upstream, and returns the ports."""
        directory = self.directory / name
        directory.mkdir()
        ports = [free_port() for _ in ways]
        servers = [
            SERVER.format(port=port, ssl=" ssl" * tls, upstream=upstream)
            for port, (tls, upstream) in zip(ports, ways)
        ]
        conf = directory / "nginx.conf"
        text = {"directory": directory, "directives": "\n".join(directives), "servers": "".join(servers)}
        conf.write_text(HOP.format(**text))
        process = self.start(name, [binary, "-p", directory, "-e", "error.log", "-c", conf])
        for port in ports:
            await_port(port, process)
        return ports

    def routes(self, binary, directives, target):
        """All ways to a WebSocket server at a port: names and URLs."""
        app = f"http://127.0.0.1:{target}"
        ws, wss = self.hop("gateway", binary, directives, [(False, app), (True, app)])
        # TLS between the hops too, unverified as by default.
        gateway = [(False, f"http://127.0.0.1:{ws}"), (True, f"https://127.0.0.1:{wss}")]
        ws_two_hops, wss_two_hops = self.hop("edge", binary, directives, gateway)
        return {
            "direct": f"ws://127.0.0.1:{target}",
            "ws": f"ws://127.0.0.1:{ws}",
            "wss": f"wss://127.0.0.1:{wss}",
            "ws-two-hops": f"ws://127.0.0.1:{ws_two_hops}",
            "wss-two-hops": f"wss://127.0.0.1:{wss_two_hops}",
        }


def end(process):
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
