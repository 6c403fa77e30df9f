"""What nginx 1.22 and wssgate may differ in. Everything else must be the same.

wssgate follows nginx 1.31. Where that differs from Debian's 1.22, or where a value cannot repeat,
the transcript of both is brought to one form here and nowhere else:

- `Server`, `Date`: the values; that the fields are there, and where, is compared.
- `Sec-WebSocket-Key` and `-Accept`: random; both ends of the dialogue have checked them.
- Pages of the proxy's own end in a line with its name and version, which also shows in their
  `Content-Length` and in the bytes that the access log counts.
- Request fields towards the app server: nginx 1.31 sends `Host` first, 1.22 sends it where
  `proxy_set_header` or its defaults put it. 1.31 does not pass `Proxy-Connection` on.
- Access log: the time and the duration. Of several peers only the last: `localhost` is ::1, too,
  where nobody listens, and the clock decides when it is tried again; when none answers, even
  that is left out. How chunks are cut, which shows in the length of an answer of many. How much
  is logged of a request line that is too long.
- Error log: time and ids, too; lines about peers that are tried at a time of the clock's choosing,
  or, with wssgate, because no other is left (`websocket_recovery`);
  what nginx quotes of the client's fields, and `Host` where it was read before the field that was
  wrong; the name of a temporary file, which wssgate's have not. Only lines about requests are
  compared: of starts, signals, certificates and TLS handshakes the words differ.
"""

import re

PAGE_END = re.compile(r"(<hr><center>)[^<]*(</center>)")
HIDDEN = {"server": "SERVER", "date": "DATE"}
RANDOM = {"sec-websocket-key": "KEY", "sec-websocket-accept": "ACCEPT"}


# Which of an upstream's peers was tried when, and what became of it.
BY_CLOCK = (
    "upstream: \"http://[::1]:8282",
    "connect() failed (111: Connection refused) while connecting to upstream",
    "temporarily disabled",
    "no live upstreams",
)


def normalise(node):
    """The same transcript without what may differ."""
    if isinstance(node, list):
        return [normalise(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: normalise(value) for key, value in node.items()}
    if "status" in node and "fields" in node:
        return answer(node)
    if "line" in node and "fields" in node:
        return request(node)
    return node


def answer(node):
    hidden = HIDDEN | RANDOM
    body = node.get("body", "")
    if PAGE_END.search(body):
        node["body"] = PAGE_END.sub(r"\1VERSION\2", body)
        hidden = hidden | {"content-length": "LENGTH"}
    node["fields"] = [hide(field, hidden) for field in node["fields"]]
    return node


def request(node):
    fields = [hide(field, RANDOM) for field in node["fields"]]
    fields = [field for field in fields if not field.startswith("Proxy-Connection:")]
    node["fields"] = sorted(fields, key=lambda field: not field.startswith("Host:"))
    return node


def hide(field, hidden):
    name, _, value = field.partition(":")
    return f"{name}: {hidden[name.lower()]}" if name.lower() in hidden else f"{name}:{value}"


def access_log(text):
    """The lines without times, sorted: a tunnel is logged at its end, beside what comes next."""
    return sorted(access_line(line) for line in text.splitlines())


def error_log(text):
    """The lines about requests without times and numbers, sorted."""
    lines = (re.sub(r"^\S+ \S+ (\[\w+\]) \S+ \*\d+ ", r"\1 ", line) for line in text.splitlines())
    lines = (line for line in lines if ", request: " in line)
    return sorted(error_line(line) for line in lines if not any(part in line for part in BY_CLOCK))


def error_line(line):
    line = re.sub(r"x{100,}[^\"]*.*", "X", line)
    line = re.sub(r": \"X-Filler-8: y.*?\"", "", line)
    line = re.sub(r": \"Host: \S+\", previous value: \"Host: \S+\"", "", line)
    line = line.replace('"Transfer-Encoding": "gzip"', '"Transfer-Encoding"')
    if "while reading client request headers" in line:
        line = re.sub(r", host: \S+$", "", line)
    return re.sub(r"temporary file \S+,", "temporary file,", line)


def access_line(line):
    line = re.sub(r"\[[^]]*\]", "[TIME]", line, count=1)
    match = re.fullmatch(r'(.*) "([^"]*)" "([^"]*)" \d+\.\d{3}', line)
    if not match:
        return line
    line, statuses, peers = match.groups()
    line = re.sub(r"x{100,}[^\"]*", "X", line)
    line = re.sub(r'(/chunks\?[^"]*" 200) \d+', r"\1 LENGTH", line)
    status, peer = statuses.split(", ")[-1], peers.split(", ")[-1]
    if status in ("-", "502"):
        peer = "NONE"
        line = re.sub(r'(" [45]\d\d) \d+ "', r'\1 LENGTH "', line, count=1)
    return f'{line} "{status}" "{peer}" DURATION'
