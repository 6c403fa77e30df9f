"""Opens the demo's page in headless Chromium, uses it as a person would, says what it showed.

    python3 demo.py CHROMIUM URL DIRECTORY

Prints JSON; screenshots and the browser's profile go into DIRECTORY.
"""

import asyncio
import json
import pathlib
import sys

from chromium import running


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
    async with running(chromium, directory) as page:
        print(json.dumps(await use(page, url, directory)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
