"""Python's web servers with an application of their own: the same echo on each, with websockets as the client."""

from kit import free_port, recipe

CLIENT = "websockets==16.0"
SAYS = """
text: hello
binary: 300000 bytes, intact
fragments: one message of 12 characters
ping: answered
close: 4001 as asked
headers: path /echo?room=1, cookie a=1, subprotocol chat
client's close: 1000 answered
refused: 403
page: 200 a page
"""


def echo(kit, servers, start):
    """Runs the echo on a server that `start` gives the command line of, from its Python and port."""
    names = [pin.split("==")[0] for pin in servers]
    python = kit.pip(*servers, CLIENT, servers=names, clients=["websockets"])
    port = free_port()
    environment = {**kit.environment, "PYTHONPATH": str(kit.here), "PATH": f"{python.parent}:{kit.environment['PATH']}"}
    kit.start("server", *start(python, port), port=port, env=environment)
    kit.gate(p8282=port)
    kit.dialogue(port, "websockets", python, kit.here / "client.py", expect=SAYS)


def with_uvicorn(implementation):
    arguments = ["--no-proxy-headers", "--lifespan", "off", "--ws", implementation]
    return lambda python, port: [python, "-m", "uvicorn", "app_asgi:app", "--port", port, *arguments]


@recipe("uvicorn")
def uvicorn(kit):
    echo(kit, ["uvicorn==0.54.0"], with_uvicorn("websockets-sansio"))


@recipe("uvicorn-wsproto")
def uvicorn_wsproto(kit):
    echo(kit, ["uvicorn==0.54.0", "wsproto==1.3.2"], with_uvicorn("wsproto"))


@recipe("hypercorn")
def hypercorn(kit):
    def start(python, port):
        return [python, "-m", "hypercorn", "app_asgi:app", "-b", f"127.0.0.1:{port}"]

    echo(kit, ["hypercorn==0.18.0"], start)


@recipe("daphne")
def daphne(kit):
    def start(python, port):
        return [python, "-m", "daphne", "-b", "127.0.0.1", "-p", port, "app_asgi:app"]

    echo(kit, ["daphne==4.2.3"], start)


@recipe("granian")
def granian(kit):
    def start(python, port):
        return [python.parent / "granian", "--interface", "asginl", "--host", "127.0.0.1", "--port", port, "app_asgi:app"]

    echo(kit, ["granian==2.8.9"], start)


@recipe("tornado")
def tornado(kit):
    echo(kit, ["tornado==6.6.1"], lambda python, port: [python, kit.here / "app_tornado.py", port])


@recipe("aiohttp")
def aiohttp(kit):
    echo(kit, ["aiohttp==3.14.5"], lambda python, port: [python, kit.here / "app_aiohttp.py", port])


@recipe("sanic")
def sanic(kit):
    echo(kit, ["sanic==25.12.1"], lambda python, port: [python, kit.here / "app_sanic.py", port])
