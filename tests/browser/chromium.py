"""Headless Chromium and its pages, by the DevTools protocol over a WebSocket."""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import pathlib
import re
import signal

from websockets.asyncio.client import connect

PATIENCE = 60  # seconds for anything, on a busy machine
FLAGS = """
    --headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run
    --disable-background-networking --disable-component-update --disable-sync --no-proxy-server
    --disable-default-apps --disable-extensions --ignore-certificate-errors --hide-scrollbars
    --window-size=1100,900 --remote-debugging-port=0
""".split()


class Page:
    """One tab, by commands of the DevTools protocol."""

    def __init__(self, socket, numbers=None):
        self.socket, self.numbers, self.session = socket, numbers or itertools.count(1), None

    def another(self):
        """One more tab; only one of them can wait for an answer at a time."""
        return Page(self.socket, self.numbers)

    async def command(self, method, **parameters):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        await self.socket.send(json.dumps(message))
        async with asyncio.timeout(PATIENCE):
            while (answer := json.loads(await self.socket.recv())).get("id") != number:
                pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    async def open(self, url, first=""):
        """Opens a URL; runs JavaScript before the page's own."""
        target = (await self.command("Target.createTarget", url="about:blank"))["targetId"]
        attached = await self.command("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        await self.command("Page.enable")
        await self.command("Page.addScriptToEvaluateOnNewDocument", source=first)
        await self.command("Page.navigate", url=url)

    async def value(self, expression):
        """The value of a JavaScript expression; waits for a promise."""
        answer = await self.command(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    async def wait(self, what, expression):
        """Waits until the expression is true; looks at every frame that is drawn."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not await self.value(f"document.readyState === 'complete' && !!({expression})"):
                    await self.value("new Promise(done => setTimeout(done, 20))")
        except TimeoutError:
            shown = await self.value("document.body.innerText")
            raise SystemExit(f"waited in vain for {what}; the page shows:\n{shown}") from None

    async def click(self, selector):
        element = f"document.querySelector('{selector}')"
        # What is scrolled out of sight cannot be hit.
        await self.value(f"{element}.scrollIntoView({{ block: 'center' }})")
        box = await self.value(
            f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({element}.getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.command(
                "Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1
            )

    async def screenshot(self, path):
        shot = await self.command("Page.captureScreenshot", captureBeyondViewport=True)
        pathlib.Path(path).write_bytes(base64.b64decode(shot["data"]))


@contextlib.asynccontextmanager
async def running(chromium, directory):
    """A page of a new browser, whose profile goes into the directory."""
    process = await asyncio.create_subprocess_exec(
        chromium, *FLAGS, f"--user-data-dir={directory / 'profile'}", "about:blank",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(PATIENCE):
            lines = []
            while not (found := re.search(r"DevTools listening on (ws://\S+)", "".join(lines))):
                line = await process.stderr.readline()
                if not line:
                    raise SystemExit(f"{chromium} does not start:\n{''.join(lines)}")
                lines.append(line.decode(errors="replace"))
        # Nobody reads further; a full pipe must not stop the browser.
        drain = asyncio.create_task(process.stderr.read())
        async with connect(found[1], max_size=None, proxy=None) as socket:
            yield Page(socket)
        drain.cancel()
    finally:
        # The browser and its children are a process group of their own.
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
