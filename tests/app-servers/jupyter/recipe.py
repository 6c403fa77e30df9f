"""Jupyter Server: its REST interface, and a kernel that executes."""

from kit import free_port, recipe

SAYS = """
api: version 2.21.1
contents: notebook of 200000 characters written and read
kernel: started
socket: subprotocol v1.kernel.websocket.jupyter.org
execute: status busy, execute_input, stream, execute_result, status idle, execute_reply
stream: from the kernel
result: 42
error: ZeroDivisionError
interrupt: KeyboardInterrupt
socket: closed by the client
terminal: wssgate-terminal
refused without a token: 403
"""


@recipe("jupyter_server")
def jupyter(kit):
    pins = ["jupyter_server==2.21.1", "ipykernel==7.4.0", "websocket-client==1.9.0"]
    python = kit.pip(*pins, servers=["jupyter_server", "ipykernel"], clients=["websocket-client"])
    port = free_port()
    home = kit.work / "home"
    home.mkdir()
    environment = {**kit.environment, "HOME": str(home), "JUPYTER_PREFER_ENV_PATH": "1"}
    environment["PATH"] = f"{python.parent}:{environment['PATH']}"
    options = {"ip": "127.0.0.1", "port": port, "open_browser": False, "root_dir": home, "allow_root": True}
    kit.start(
        "jupyter", python, "-m", "jupyter_server", *(f"--ServerApp.{name}={value}" for name, value in options.items()),
        "--ServerApp.local_hostnames=['localhost']", "--IdentityProvider.token=sesame", port=port, env=environment,
    )  # fmt: skip
    kit.gate(p8890=port)
    kit.dialogue(port, "kernel", python, kit.here / "client.py", expect=SAYS)
