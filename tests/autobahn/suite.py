"""Runs the cases of Autobahn's WebSocket testsuite, as PyPI has it, under Python 3.

    python suite.py client SPEC RESULTS     plays a client against SPEC's server
    python suite.py server SPEC RESULTS     plays a server until a client asks for /updateReports

The package autobahntestsuite is Python 2. It is converted while it is imported, and its own files stay
as they are. Byte strings of Python 2 become strings of one character per byte, which is what the cases
compare; `Boundary` translates where they meet the WebSocket library, which knows bytes. RESULTS is
written as JSON: for each case what it and its closing handshake came to, in the suite's words.
"""

import binascii
import importlib.machinery
import importlib.util
import json
import os
import re
import sys
import types

# The compiled cases are kept apart from what an interpreter makes of the files without conversion.
sys.pycache_prefix = os.path.join(sys.prefix, "converted")

from fissix import refactor  # noqa: E402
from twisted.internet import epollreactor  # noqa: E402

epollreactor.install()
from twisted.internet import reactor  # noqa: E402

PACKAGE = "autobahntestsuite"
FIXERS = "dict except has_key import long ne numliterals print raise repr unicode xrange".split()

# What no fixer knows: a pattern of some file, and what stands for it in Python 3.
REPLACEMENTS = {
    # Order of bases: nothing may precede its own subclass.
    r"\(object, Case\b": "(Case",
    r"binascii\.b2a_hex\(": "suite_hex(",
    r"\bv\.validate\((.*)\)$": r"v.validate(suite_bytes(\1))",
    r"/ self\.p\.autoFragmentSize": "// self.p.autoFragmentSize",
}


def suite_bytes(text):
    """The bytes of a string that has one character for each; also of true text, as UTF-8."""
    if text is None or isinstance(text, bytes):
        return text
    try:
        return bytes(text, "latin-1")
    except UnicodeEncodeError:
        return bytes(text, "utf-8")


def suite_text(data):
    """A string with one character for each byte."""
    return data if isinstance(data, str) else bytes(data).decode("latin-1")


def suite_hex(data):
    return binascii.hexlify(suite_bytes(data)).decode()


class Converter(importlib.machinery.SourceFileLoader):
    """Loads a module of the suite; the interpreter caches what comes of it."""

    tool = refactor.RefactoringTool([f"fissix.fixes.fix_{name}" for name in FIXERS])

    def source_to_code(self, data, path, **options):
        text = data.decode("latin-1").replace("\r\n", "\n") + "\n"
        text = re.sub(r"^#.*coding[:=].*$", "#", text, flags=re.MULTILINE)
        text = str(self.tool.refactor_string(text, path))
        for pattern, replacement in REPLACEMENTS.items():
            text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
        return super().source_to_code(text.encode(), path, **options)

    def exec_module(self, module):
        module.suite_bytes, module.suite_hex = suite_bytes, suite_hex
        super().exec_module(module)


class Finder:
    """Finds the modules of the suite for the Converter."""

    @staticmethod
    def find_spec(name, path, target=None):
        if not name.startswith(PACKAGE + "."):
            return None
        for directory in path:
            base = os.path.join(directory, name.rpartition(".")[2])
            packages = [base] if os.path.isdir(base) else None
            file = os.path.join(base, "__init__.py") if packages else base + ".py"
            if os.path.exists(file):
                loader = Converter(name, file)
                return importlib.util.spec_from_file_location(
                    name, file, loader=loader, submodule_search_locations=packages
                )
        return None


class Boundary:
    """Stands between the suite's protocols and the library's: text on this side, bytes on that."""

    def sendFrame(self, opcode, payload=b"", fin=True, rsv=0, mask=None, payload_len=None,
                  chopsize=None, sync=False):  # fmt: skip
        payload = suite_bytes(payload)
        if payload_len is not None:
            payload = (payload * (payload_len // len(payload) + 1))[:payload_len]
        super().sendFrame(opcode, payload, fin, rsv, suite_bytes(mask), None, chopsize, sync)

    def sendMessage(self, payload, *more, **options):
        super().sendMessage(suite_bytes(payload), *more, **options)

    def sendMessageFrame(self, payload, sync=False):
        return super().sendMessageFrame(suite_bytes(payload), sync)

    def sendMessageFrameData(self, payload, sync=False):
        return super().sendMessageFrameData(suite_bytes(payload), sync)

    def sendPing(self, payload=None):
        super().sendPing(suite_bytes(payload))

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        super().sendCloseFrame(code, suite_bytes(reasonUtf8), isReply)

    def sendData(self, data, sync=False, chopsize=None):
        super().sendData(suite_bytes(data), sync, chopsize)

    def onPong(self, payload):
        super().onPong(suite_text(payload))

    def onMessage(self, msg, binary):
        super().onMessage(suite_text(msg), binary)

    def logRxFrame(self, header, payload):
        super().logRxFrame(header, [suite_text(part) for part in payload])


def load():
    """The suite's module with both fuzzing peers, ready to be used."""
    package = types.ModuleType(PACKAGE)
    found = importlib.machinery.PathFinder.find_spec(PACKAGE)
    package.__path__, package.__file__ = found.submodule_search_locations, found.origin
    package.version = "on Python 3"
    # Reports for people, which nobody reads here, and a case that the suite does not list.
    report = types.ModuleType(f"{PACKAGE}.report")
    report.CSS_COMMON = report.CSS_DETAIL_REPORT = report.CSS_MASTER_REPORT = ""
    report.JS_MASTER_REPORT = ""
    unlisted = types.ModuleType(f"{PACKAGE}.case.case9_9_1")
    sys.modules.update({module.__name__: module for module in (package, report, unlisted)})
    sys.meta_path.insert(0, Finder)
    fuzzing = importlib.import_module(f"{PACKAGE}.fuzzing")
    case = importlib.import_module(f"{PACKAGE}.case.case")
    compressed = importlib.import_module(f"{PACKAGE}.case.case12_x_x")

    # Equal objects have equal pickles in Python 2 only.
    case.Case.compare = lambda self, one, other: list(one) == list(other)
    for each in compressed.Case12_X_X + compressed.Case13_X_X:
        each.onMessage = with_bytes(each.onMessage)
    fuzzing.binLogData = lambda data, maxlen=64: suite_hex(data[:maxlen])
    fuzzing.asciiLogData = lambda data, maxlen=64, replace=False: suite_text(data[:maxlen])
    client = type("Client", (Boundary, fuzzing.FuzzingClientProtocol), {})
    server = type("Server", (Boundary, fuzzing.FuzzingServerProtocol), {})
    fuzzing.FuzzingClientProtocol, fuzzing.FuzzingServerFactory.protocol = client, server
    return fuzzing


def with_bytes(on_message):
    return lambda self, msg, binary: on_message(self, suite_bytes(msg), binary)


def write_results(factory, path):
    """What all cases came to, by the name of the peer and the number of the case."""
    keys = ["behavior", "behaviorClose", "remoteCloseCode", "result", "resultClose", "duration"]
    everything = {
        agent: {number: {key: result[key] for key in keys} for number, result in results.items()}
        for agent, results in factory.agents.items()
    }
    with open(path + ".new", "w") as file:
        json.dump(everything, file, default=str)
    os.replace(path + ".new", path)


def main(mode, spec, path):
    fuzzing = load()
    fuzzing.FuzzingFactory.createReports = lambda factory: write_results(factory, path)
    with open(spec) as file:
        spec = json.load(file)
    if mode == "client":
        fuzzing.startClient(spec)
    else:
        fuzzing.startServer(spec, 0)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
