"""Runs page.js in headless Chromium on a server's page titled "interop", and fails if anything differs.

    python3 chromium_client.py CHROMIUM URL DIRECTORY

The browser's profile goes into DIRECTORY.
"""

import asyncio
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "browser"))

from chromium import running  # noqa: E402


async def main(chromium, url, directory):
    async with running(chromium, pathlib.Path(directory)) as page:
        await page.open(url)
        await page.wait("the page", "document.title === 'interop'")
        result = await page.value((HERE / "page.js").read_text())
        assert result == "all good", result


asyncio.run(main(*sys.argv[1:]))
