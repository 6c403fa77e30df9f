"""Opens the demo's page in headless Chromium, uses it as a person would, says what it showed.

    python3 browser.py CHROMIUM URL DIRECTORY

Prints JSON; screenshots and the browser's profile go into DIRECTORY. Speaks the DevTools protocol
over a WebSocket.
"""

import asyncio
import base64
import itertools
import json
import os
import pathlib
import re
import signal
import sys

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

    def __init__(self, socket):
        self.socket, self.numbers, self.session = socket, itertools.count(1), None

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

    async def open(self, url):
        target = (await self.command("Target.createTarget", url="about:blank"))["targetId"]
        attached = await self.command("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        await self.command("Page.enable")
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
        box = await self.value(
            f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])"
            f"(document.querySelector('{selector}').getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.command(
                "Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1
            )

    async def screenshot(self, path):
        shot = await self.command("Page.captureScreenshot", captureBeyondViewport=True)
        pathlib.Path(path).write_bytes(base64.b64decode(shot["data"]))


async def use(page, url, directory):
    """What a person does with the page, and what it shows."""
    await page.open(url)
    await page.wait("an open WebSocket", "document.getElementById('state')?.textContent.startsWith('open')")
    state = await page.value("document.getElementById('state').textContent")

    await page.click("#text")
    await page.command("Input.insertText", text="hello through two hops ✓")
    await page.click("#form button")
    chat = "document.querySelector('#log .chat')"
    await page.wait("the chat message", chat)

    await page.click("#push")
    push = "document.querySelector('#log .push')"
    await page.wait("the push", push)
    # A second and a third probe of the round trip.
    await page.wait("round trips", "samples.length >= 3")

    result = {
        "state": state,
        "chat": await page.value(f"{chat}.innerText"),
        "push": await page.value(f"{push}.innerText"),
        "request": await page.value("document.getElementById('request').innerText"),
        "round trips": await page.value("document.getElementById('median').textContent"),
        "people": await page.value("document.getElementById('people').textContent"),
    }
    schemes = {"light": (1100, 900), "dark": (1100, 900), "narrow": (390, 844)}
    for name, (width, height) in schemes.items():
        scheme = "dark" if name == "dark" else "light"
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await page.command("Emulation.setEmulatedMedia", features=features)
        await page.command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=name == "narrow",
        )
        await page.screenshot(directory / f"{name}.png")
    overflow = await page.value("document.documentElement.scrollWidth > innerWidth")
    return result | {"wider than a phone": overflow}


async def main(chromium, url, directory):
    directory = pathlib.Path(directory)
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
            print(json.dumps(await use(Page(socket), url, directory)))
        drain.cancel()
    finally:
        # The browser and its children are a process group of their own.
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
