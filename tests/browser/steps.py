"""What the scripts of several pages do."""

import asyncio
import sys

# What a page with somebody's script in a text of others would do.
INJECT = """(() => { const script = document.createElement('script');
    try { script.textContent = 'globalThis.injected = true'; } catch {}
    try { script.append('globalThis.injected = true'); document.body.append(script); } catch {}
    return globalThis.injected ?? false; })()"""


async def told(word):
    """Has the test do something and waits until it is done."""
    print(word, flush=True)
    if await asyncio.to_thread(sys.stdin.readline) != "done\n":
        raise SystemExit(f"nobody did {word}")


async def text(page, selector):
    return await page.value(f"document.querySelector('{selector}').innerText")


async def texts(page, selector):
    return await page.value(f"[...document.querySelectorAll('{selector}')].map(e => e.innerText)")


async def resize(page, width, height, scheme):
    """Has the page this size, in pixels, and this scheme, `light` or `dark`."""
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        # Colours that are on their way would be in a picture.
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    await page.command("Emulation.setEmulatedMedia", features=features)
    await page.command(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=height, deviceScaleFactor=1, mobile=width < 500,
    )  # fmt: skip
