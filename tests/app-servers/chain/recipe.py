"""Another proxy before wssgate and behind it, with the echo of the Python servers on uvicorn at the end."""

from kit import HERE, free_port, recipe

ECHO = HERE / "python"
VERSIONS = {
    "haproxy": "2.6.12-1+deb12u4",
    "apache2-bin": "2.4.71-1~deb12u1",
    "lighttpd": "1.4.69-1",
    "caddy": "2.6.2-5",
}
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

HAPROXY = """
global
    pidfile {work}/haproxy.pid
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h
frontend all
    bind 127.0.0.1:{port}
    default_backend next
backend next
    server next 127.0.0.1:{next}
"""
APACHE = """
ServerRoot /usr/lib/apache2
ServerName localhost
DefaultRuntimeDir {work}
PidFile {work}/apache.pid
ErrorLog {work}/apache.errors
User nobody
Group nogroup
Listen 127.0.0.1:{port}
LoadModule mpm_event_module modules/mod_mpm_event.so
LoadModule authz_core_module modules/mod_authz_core.so
LoadModule proxy_module modules/mod_proxy.so
LoadModule proxy_http_module modules/mod_proxy_http.so
ProxyPass / http://127.0.0.1:{next}/ upgrade=websocket
"""
LIGHTTPD = """
server.modules = ("mod_proxy")
server.document-root = "{work}"
server.bind = "127.0.0.1"
server.port = {port}
server.errorlog = "{work}/lighttpd.errors"
proxy.server = ("" => (("host" => "127.0.0.1", "port" => {next})))
proxy.header = ("upgrade" => "enable")
"""
CADDY = """
{{
    admin off
    auto_https off
    storage file_system {work}/caddy
}}
http://127.0.0.1:{port}, http://localhost:{port} {{
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:{next}
}}
"""
PROXIES = {
    "haproxy": (HAPROXY, ["haproxy", "-db", "-f"]),
    "apache2-bin": (APACHE, ["apache2", "-DFOREGROUND", "-f"]),
    "lighttpd": (LIGHTTPD, ["lighttpd", "-D", "-f"]),
    "caddy": (CADDY, ["caddy", "run", "--adapter", "caddyfile", "--config"]),
}


def proxy(kit, name, behind):
    """Starts a proxy before the server on port `behind` and returns its own."""
    system = kit.debian({name: VERSIONS[name]})
    text, command = PROXIES[name]
    port, conf = free_port(), kit.work / f"{name}.conf"
    conf.write_text(text.format(work=kit.work, port=port, next=behind))
    kit.start(name, *system, *command, conf, port=port)
    return port


def app(kit):
    python = kit.pip("uvicorn==0.54.0", "websockets==16.0", servers=["uvicorn"], clients=["websockets"])
    port = free_port()
    environment = {**kit.environment, "PYTHONPATH": str(ECHO)}
    uvicorn = [python, "-m", "uvicorn", "app_asgi:app", "--lifespan", "off", "--port", port]
    kit.start("uvicorn", *uvicorn, port=port, env=environment)
    return python, port


def before(name):
    """Client, proxy, wssgate, app server."""

    def run(kit):
        python, port = app(kit)
        kit.gate(p8282=port)
        # What the kit calls direct is the way through both.
        kit.dialogue(proxy(kit, name, kit.plain), "websockets", python, ECHO / "client.py", expect=SAYS)

    recipe(f"{name}-before")(run)


def behind(name):
    """Client, wssgate, proxy, app server."""

    def run(kit):
        python, port = app(kit)
        port = proxy(kit, name, port)
        kit.gate(p8282=port)
        kit.dialogue(port, "websockets", python, ECHO / "client.py", expect=SAYS)

    recipe(f"{name}-behind")(run)


for each in PROXIES:
    before(each)
    behind(each)
