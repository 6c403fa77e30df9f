"""Opens the demo's page in headless Chromium, uses it as a person would, says what it showed.

    python3 demo.py CHROMIUM URL DIRECTORY

Has things done to the demo by words on standard output, each answered by a line on standard input: "spoil"
and "mend" its certificate, "stop" and "start" it. Then prints JSON; screenshots and the browser's profile go into DIRECTORY.
"""

import asyncio
import json
import pathlib
import sys

from chromium import running
from steps import INJECT, resize, text, texts, told

OPEN = "document.getElementById('state')?.textContent.startsWith('open')"
# Elements whose content is wider than they are, on a page that scrolls only down.
CUT_OFF = """[document.documentElement, ...document.querySelectorAll('body *')]
    .filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth && !e.closest('svg, .unseen'))
    .filter(e => getComputedStyle(e).display !== 'inline').map(e => e.outerHTML.slice(0, 80))"""
WATCH_POLICY = """globalThis.violations = [];
    addEventListener('securitypolicyviolation', e => violations.push(e.violatedDirective + ' ' + e.blockedURI));"""


async def say(page, words):
    await page.click("#text")
    await page.command("Input.insertText", text=words)
    await page.click("#send")
    await page.wait("one's own message", "document.querySelector('#log .mine')")


async def look(page, name, width, height, scheme="light"):
    """Takes a picture at this size; gives what is cut off."""
    await resize(page, width, height, scheme)
    await page.screenshot(DIRECTORY / f"{name}.png")
    return await page.value(CUT_OFF)


async def talk(page, other, url):
    """Two people in the room, of whom one asks for a push."""
    await page.open(url, WATCH_POLICY)
    await page.wait("an open WebSocket", OPEN)
    state = await text(page, "#state")
    await say(page, "hello through two hops ✓")
    await other.open(url)
    await other.wait("the other's WebSocket", OPEN)
    await page.click("#push")
    await page.wait("the push", "document.querySelector('#log .push')")
    # Comes to both behind the push, if that had been sent to both.
    await say(other, "hello from another tab")
    await page.wait("the other's message", "document.querySelector('#log .chat')")
    people = await text(page, "#people")
    return {
        "state": state,
        "people": people,
        "mine": await texts(page, "#log .mine"),
        "others": await texts(page, "#log .chat"),
        "push": await texts(page, "#log .push"),
        "push of the other": await texts(other, "#log .push"),
        "mine of the other": await texts(other, "#log .mine"),
    }


async def reload(page, other):
    """Two reloads by the button, one that fails, and two attempts to reload without it."""
    await page.wait("all sockets", "document.getElementById('sockets').textContent === '8'")
    await page.value("void (globalThis.kept = [...links].map(link => link.socket))")
    verdicts = []
    for generation in (2, 3):
        await page.click("[data-control=reload]")
        await page.wait(
            f"generation {generation}",
            f"document.querySelector('#verdict.good, #verdict.bad')?.innerText.includes('n {generation} ')",
        )
        verdicts.append(await text(page, "#verdict"))
    await other.wait("the generation in the other tab", "generation === 3")
    await told("spoil")
    await page.click("[data-control=reload]")
    await page.wait("the refusal", "document.querySelector('#verdict.bad')")
    failure = await text(page, "#verdict")
    await told("mend")
    refused = "(options => fetch('/control/reload', options).then(answer => answer.status))"
    result = {
        "verdicts": verdicts,
        "failure": failure,
        "sockets kept": await page.value("kept.filter(socket => socket.readyState === 1).length"),
        "sockets shown": await text(page, "#sockets"),
        "reloads": await text(page, "#reloads"),
        "dropped": await text(page, "#dropped"),
        "hops": await texts(page, ".generation"),
        "without the header": await page.value(f"{refused}({{ method: 'POST' }})"),
        "by a link": await page.value(f"{refused}({{ headers: {{ 'X-Wssgate-Demo': 'reload' }} }})"),
    }
    await page.wait("echoes", "counts.echoed === counts.sent && counts.sent > 20")
    return result | {"generation in the end": await page.value("generation")}


async def lose(page):
    """The demo ends and comes back; a draft is kept meanwhile."""
    await page.click("#text")
    await page.command("Input.insertText", text="a draft")
    await told("stop")
    await page.wait("the third attempt", "attempts >= 3")
    result = {
        "state": await text(page, "#state"),
        "notes": [note for note in await texts(page, "#log .note") if "lost" in note],
        "cut off when lost": await look(page, "lost", 320, 640),
        "sockets when lost": await text(page, "#sockets"),
    }
    await told("start")
    await page.wait("the WebSocket again", OPEN)
    await page.wait("all sockets again", "document.getElementById('sockets').textContent === '8'")
    return result | {
        "notes in the end": [note for note in await texts(page, "#log .note") if "lost" in note],
        "draft": await page.value("document.getElementById('text').value"),
        "generation": await text(page, ".generation"),
        "dropped": await text(page, "#dropped"),
    }


async def use(page, url):
    """What people do with the page, and what it shows."""
    other = page.another()
    shown = {"talk": await talk(page, other, url)}
    # A second and a third probe of the round trip.
    await page.wait("round trips", "samples.length >= 3")
    shown |= {
        "request": await text(page, "#request"),
        "round trips": await text(page, "#median"),
        "axis": await text(page, "#chart"),
        "next": await texts(page, ".command code"),
    }
    shown["reload"] = await reload(page, other)
    # The longest number that a busy machine has shown, and more.
    await page.value("roundTrip(1234.5)")
    sizes = {
        "light": (1100, 900), "dark": (1100, 900, "dark"), "narrow": (390, 844), "smallest": (320, 640, "dark"),
    }  # fmt: skip
    shown["cut off"] = {name: await look(page, name, *size) for name, size in sizes.items()}
    shown["lost"] = await lose(page)
    shown["violations"] = await page.value("violations")
    shown["injected"] = await page.value(INJECT)
    shown["caught"] = await page.value("violations")
    return shown


async def main():
    async with running(sys.argv[1], DIRECTORY) as page:
        shown = await use(page, sys.argv[2])
    print(json.dumps(shown))


DIRECTORY = pathlib.Path(sys.argv[3])
asyncio.run(main())
