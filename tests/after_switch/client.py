"""A TLS client that may send any record, by tlslite-ng: what is answered behind the switch to a WebSocket.

usage: client.py HOST:PORT [--tell]

The server must echo text messages. Every case opens a connection, switches, sends records, and is compared
with what it is said to come to:

    passes         an echo comes back afterwards
    alert N        a fatal alert with this number, behind which nothing is sent
    close_notify   close_notify, behind which nothing is sent
    end            the connection ends without an alert

With `--tell` the outcomes are only listed, to hold one server against another.
"""

import socket
import sys

from tlslite.api import HandshakeSettings, TLSConnection
from tlslite.messages import Message

ALERT, HANDSHAKE, DATA = 21, 22, 23
CLOSE_NOTIFY = (ALERT, b"\x01\x00")
UPDATE = b"\x18\x00\x00\x01\x00"
UPDATE_REQUESTED = b"\x18\x00\x00\x01\x01"
HELLO = b"\x01\x00\x00\x29\x03\x03" + bytes(32) + b"\x00\x00\x02\x00\x2f\x01\x00"
REQUEST = (
    b"GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
PATIENCE = 20


def text(message):
    """A masked frame, and its echo."""
    return b"\x81" + bytes([0x80 | len(message)]) + bytes(4) + message, b"\x81" + bytes([len(message)]) + message


class Client:
    """A connection under which every record can be sent."""

    def __init__(self, address, version):
        self.socket = socket.create_connection(address, timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        settings = HandshakeSettings()
        settings.minVersion = settings.maxVersion = version
        self.tls = TLSConnection(self.socket)
        self.tls.handshakeClientCert(settings=settings, serverName="localhost")
        self.records = self.tls._recordLayer
        self.version = version
        self.plain = b""
        self.outcome = None

    def send(self, kind, content):
        """One record, whatever is in it."""
        for _ in self.records.sendRecord(Message(kind, bytearray(content))):
            pass

    def update_keys(self, message=UPDATE):
        """What is sent from here on is under the next keys."""
        self.send(HANDSHAKE, message)
        self.next_keys()

    def next_keys(self):
        session = self.tls.session
        secrets = self.records.calcTLS1_3KeyUpdate_reciever(
            session.cipherSuite, session.cl_app_secret, session.sr_app_secret
        )
        session.cl_app_secret, session.sr_app_secret = secrets

    def raw(self, wire):
        self.socket.sendall(wire)

    def receive(self):
        """Takes one record; says the outcome if there is one."""
        try:
            for result in self.records.recvRecord():
                if result not in (0, 1):
                    break
        except Exception as error:
            return "reset" if isinstance(error, ConnectionResetError) else "end"
        header, content = result
        content = bytes(content.bytes[content.index :])
        if header.type == DATA:
            self.plain += content
        elif header.type == ALERT:
            return "close_notify" if content[1:] == b"\0" else f"alert {content[1]}"
        elif header.type == HANDSHAKE and content == UPDATE:
            session = self.tls.session
            secrets = self.records.calcTLS1_3KeyUpdate_sender(
                session.cipherSuite, session.cl_app_secret, session.sr_app_secret
            )
            session.cl_app_secret, session.sr_app_secret = secrets
        return None

    def expect(self, wanted):
        """Reads until these bytes have come; an outcome that comes first is kept."""
        while wanted not in self.plain and self.outcome is None:
            self.outcome = self.receive()
        if wanted in self.plain:
            self.plain = self.plain.split(wanted, 1)[1]

    def switch(self):
        self.expect(b"\r\n\r\n")

    def verdict(self, told):
        """What comes of all that was sent."""
        if told != "passes":
            while self.outcome is None:
                self.outcome = self.receive()
            return self.outcome
        frame, echo = text(b"still here")
        try:
            self.send(DATA, frame)
        except OSError:
            pass
        self.expect(echo)
        return self.outcome or "passes"


def records(*sent):
    """A case that sends these records behind the switch."""

    def case(client):
        client.send(DATA, REQUEST)
        client.switch()
        for kind, content in sent:
            client.send(kind, content)

    return case


def wire(bytes_):
    """A case that sends these bytes as they are."""

    def case(client):
        client.send(DATA, REQUEST)
        client.switch()
        client.raw(bytes_)

    return case


def updates(*messages, data=True):
    """A case that updates its keys by each of these, with data between them."""

    def case(client):
        client.send(DATA, REQUEST)
        client.switch()
        for message in messages:
            client.update_keys(message)
            if data:
                frame, echo = text(b"x")
                client.send(DATA, frame)
                client.expect(echo)

    return case


def split_over_the_switch(client):
    """The first part of a KeyUpdate before the 101, the second behind it."""
    client.send(DATA, REQUEST)
    client.send(HANDSHAKE, UPDATE[:2])
    client.switch()
    client.send(HANDSHAKE, UPDATE[2:])
    client.next_keys()


def split_over_records(client):
    client.send(DATA, REQUEST)
    client.switch()
    for at in range(len(UPDATE)):
        client.send(HANDSHAKE, UPDATE[at : at + 1])
    client.next_keys()


def many_updates_before(client):
    """More than anybody counts without data between them."""
    for at in range(0, 100):
        client.update_keys()
        client.send(DATA, REQUEST[at : at + 1])
    client.send(DATA, REQUEST[100:])
    client.switch()


EMPTY = (DATA, b"")
TLS12, TLS13 = (3, 3), (3, 4)
BOTH = (TLS12, TLS13)

CASES = [
    # Updates of keys (RFC 8446 section 4.6.3).
    ("update", [TLS13], updates(UPDATE), "passes"),
    ("update that asks for one", [TLS13], updates(UPDATE_REQUESTED), "passes"),
    ("updates of both kinds", [TLS13], updates(*[UPDATE, UPDATE_REQUESTED] * 5), "passes"),
    ("100 updates without data", [TLS13], updates(*[UPDATE] * 100, data=False), "passes"),
    ("101 updates without data", [TLS13], updates(*[UPDATE] * 101, data=False), "alert 10"),
    ("100 updates before the switch", [TLS13], many_updates_before, "passes"),
    ("update over several records", [TLS13], split_over_records, "passes"),
    ("update split over the switch", [TLS13], split_over_the_switch, "passes"),
    ("half an update, then data", [TLS13], records((HANDSHAKE, UPDATE[:3]), (DATA, text(b"x")[0])), "alert 10"),
    ("half an update, then an alert", [TLS13], records((HANDSHAKE, UPDATE[:3]), CLOSE_NOTIFY), "alert 10"),
    ("update to 2", [TLS13], records((HANDSHAKE, b"\x18\0\0\x01\x02")), "alert 47"),
    ("update that is too long", [TLS13], records((HANDSHAKE, b"\x18\0\0\x02\0\0")), "alert 50"),
    ("two updates in a record", [TLS13], records((HANDSHAKE, UPDATE * 2)), "alert 10"),
    ("update in TLS 1.2", [TLS12], records((HANDSHAKE, UPDATE)), "alert 10"),
    # Other messages of the handshake.
    ("ticket of a client", [TLS13], records((HANDSHAKE, b"\x04\0\0\x01\0")), "alert 10"),
    ("Finished", BOTH, records((HANDSHAKE, b"\x14\0\0\x0c" + bytes(12))), "alert 10"),
    ("ClientHello in TLS 1.3", [TLS13], records((HANDSHAKE, HELLO)), "alert 10"),
    ("renegotiation in TLS 1.2", [TLS12], records((HANDSHAKE, HELLO)), "passes"),
    ("renegotiation twice in TLS 1.2", [TLS12], records((HANDSHAKE, HELLO), (HANDSHAKE, HELLO)), "alert 10"),
    ("empty handshake record", BOTH, records((HANDSHAKE, b"")), "alert 10"),
    # Records.
    ("empty records", BOTH, records(*[EMPTY] * 32), "passes"),
    ("too many empty records", BOTH, records(*[EMPTY] * 101), "alert 10"),
    ("longest record", BOTH, records((DATA, text(b"x")[0] + b"\x82\xfe\x3f\xf1" + bytes(4) + bytes(16369))), "passes"),
    ("too long a record inside", BOTH, records((DATA, bytes((1 << 14) + 2))), "alert 22"),
    ("too long a record outside", BOTH, wire(b"\x17\x03\x03\xff\xff"), "alert 22"),
    ("nothing but padding", [TLS13], records((0, bytes(5))), "alert 10"),
    ("unknown type inside", [TLS13], records((99, b"x")), "alert 10"),
    ("unknown type outside", BOTH, wire(b"\x63\x03\x03\x00\x01\x00"), "alert 10"),
    ("unprotected alert", [TLS13], wire(b"\x15\x03\x03\x00\x02\x01\x00"), "alert 10"),
    ("change_cipher_spec", BOTH, wire(b"\x14\x03\x03\x00\x01\x01"), "alert 10"),
    ("forged record", BOTH, wire(b"\x17\x03\x03\x00\x20" + bytes(32)), "alert 20"),
    ("no TLS", BOTH, wire(b"GET / HTTP/1.1\r\n\r\n"), "alert 10"),
    # Alerts.
    ("empty alert", BOTH, records((ALERT, b"")), "alert 10"),
    ("half an alert", BOTH, records((ALERT, b"\x02")), "alert 10"),
    ("two alerts in a record", BOTH, records((ALERT, b"\x01\x5a" * 2)), "alert 10"),
    ("alert of no level", BOTH, records((ALERT, b"\x03\x28")), "alert 47"),
    ("user_canceled", BOTH, records((ALERT, b"\x01\x5a")), "passes"),
    ("warning in TLS 1.2", [TLS12], records((ALERT, b"\x01\x70")), "passes"),
    ("warning in TLS 1.3", [TLS13], records((ALERT, b"\x01\x70")), "end"),
    ("fatal alert", BOTH, records((ALERT, b"\x02\x28")), "end"),
    ("close_notify", BOTH, records(CLOSE_NOTIFY), "close_notify"),
    ("data behind close_notify", BOTH, records(CLOSE_NOTIFY, (DATA, b"x")), "close_notify"),
]


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    tell = "--tell" in sys.argv
    failures = 0
    for name, versions, case, expected in CASES:
        for version in versions:
            client = Client((host.strip("[]"), int(port)), version)
            try:
                case(client)
            except OSError:
                # It has ended before all was sent, which is what the verdict tells.
                pass
            outcome = client.verdict(expected)
            client.socket.close()
            title = f"TLS 1.{version[1] - 1}: {name}"
            if tell:
                print(f"{title}: {outcome}")
            elif outcome != expected:
                failures += 1
                print(f"{title}: {outcome}, not {expected}")
    print(f"{failures} of {sum(len(versions) for _, versions, _, _ in CASES)} cases fail")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
