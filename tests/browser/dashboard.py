"""Opens a dashboard in headless Chromium, uses it as an operator would, says what it showed.

    python3 dashboard.py CHROMIUM URL VIEW_URL DIRECTORY

URL is one that may close, VIEW_URL one that only shows. Has things done by words on standard output, each answered by a line
on standard input: "stop" and "start" the server. Then prints JSON; screenshots and the browser's profile go into DIRECTORY.
"""

import asyncio
import json
import pathlib
import sys

from chromium import running
from steps import INJECT, resize, text, texts, told

ROWS = "document.querySelectorAll('#rows tr')"
LIVE = "document.getElementById('state').textContent === 'live'"
# Elements whose content is wider than they are, but for those that are to be scrolled or end in an ellipsis.
CUT_OFF = """[document.documentElement, ...document.querySelectorAll('body *')]
    .filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth && !e.closest('svg'))
    .filter(e => { const style = getComputedStyle(e);
      return style.display !== 'inline' && style.textOverflow !== 'ellipsis' && !['auto', 'scroll'].includes(style.overflowX); })
    .map(e => e.outerHTML.slice(0, 80))"""
WATCH = """globalThis.violations = []; globalThis.errors = [];
    addEventListener('securitypolicyviolation', e => violations.push(e.violatedDirective + ' ' + e.blockedURI));
    addEventListener('error', e => errors.push(e.message));
    addEventListener('unhandledrejection', e => errors.push(String(e.reason)));"""
# A list whose first child, which has the focus, moves behind the other.
MOVE = """import('./dom.js').then(({ list, make, visible }) => {
    const parent = make('ul');
    document.body.append(parent);
    const fill = keys => list(parent, keys, key => key, key => make('button', { type: 'button' }, key), () => {});
    fill(['a', 'b']);
    parent.firstElementChild.focus();
    fill(['b', 'a']);
    const focused = document.activeElement.textContent;
    parent.remove();
    return { focused, visible: visible('a\\u202eb\\u200bc\\n') };
  })"""
REFUSALS = """import('./server.js').then(({ get }) =>
    Promise.all(['moved', 'foreign', 'none'].map(path => get(path).then(() => null, refusal => refusal.status))))"""
SIZES = {
    "light": (1440, 1000, "light"), "dark": (1440, 1000, "dark"), "wide": (1920, 1080, "light"),
    "tablet": (820, 1180, "dark"), "phone": (390, 844, "light"), "smallest": (320, 640, "dark"),
}  # fmt: skip


async def fill(page, selector, words):
    await page.click(selector)
    await page.value(f"document.querySelector('{selector}').select()")
    await page.command("Input.insertText", text=words)


async def look(page, name, width, height, scheme):
    """Takes a picture at this size; gives what is cut off, and the colour behind everything."""
    await resize(page, width, height, scheme)
    # Charts are drawn again once they know how wide they are.
    await page.wait("charts of this width", "[...document.querySelectorAll('.plot')].every(plot => plot.firstChild.viewBox.baseVal.width === plot.clientWidth)")
    await page.screenshot(DIRECTORY / f"{name}.png")
    return await page.value(CUT_OFF), await page.value("getComputedStyle(document.body).backgroundColor")


async def back(page):
    """Back to the size of the window; waits until nothing moves any more."""
    await page.command("Emulation.clearDeviceMetricsOverride")
    await page.wait("the window", "innerWidth > 1000")
    await page.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


async def filter_and_close(page):
    """Finds somebody's sockets, looks at one, and closes all of them."""
    await fill(page, "[name=user]", "ann")
    await page.wait("the filter", f"{ROWS}.length === 2 && location.hash")
    result = {
        "users": await texts(page, "#rows td:nth-child(2) span"),
        "matched": await text(page, "#matched"),
        "address": await page.value("location.hash"),
        "button": await text(page, "#close"),
    }
    await page.click("#rows tr button")
    await page.wait("the details", "document.querySelectorAll('#details-facts dd').length > 9 && document.querySelector('#details-sides td + td')")
    result["details"] = await text(page, "#details-facts")
    result["cut off in details"] = (await look(page, "details", 320, 640, "light"))[0]
    await page.command("Input.dispatchKeyEvent", type="keyDown", key="Escape", code="Escape", windowsVirtualKeyCode=27)
    await page.wait("no dialog", "!document.querySelector('dialog[open]')")
    # On a phone the filters are folded away.
    result["folded"] = await page.value("!document.querySelector('[name=min_age]').checkVisibility()")
    await page.click("#more")
    result["unfolded"] = await page.value("document.querySelector('[name=min_age]').checkVisibility()")
    await back(page)
    await fill(page, "[name=min_age]", "soon")
    await page.wait("what is wrong with the filter", "!document.getElementById('problem').hidden")
    result["problem"] = await text(page, "#problem")
    await fill(page, "[name=min_age]", "0s")
    await page.wait("a filter that is right", "document.getElementById('problem').hidden")
    await page.click("#close")
    await page.wait("the question", "document.getElementById('closing').open")
    result["question"] = await text(page, "#closing-what")
    result["go"] = await text(page, "#closing-go")
    await fill(page, "#closing-code", "1005")
    await page.click("#closing-go")
    await page.wait("a code that nobody may send", "!document.getElementById('closing-problem').hidden")
    result["bad code"] = await text(page, "#closing-problem")
    await fill(page, "#closing-code", "4001")
    await fill(page, "#closing-reason", "elsewhere")
    result["cut off when asked"] = (await look(page, "closing", 320, 640, "dark"))[0]
    await page.click("#closing-go")
    await page.wait("the end", "document.querySelector('[data-name=done]')")
    result["done"] = await text(page, "[data-name=done] span")
    await back(page)
    await page.wait("no such socket", "!document.getElementById('empty').hidden")
    result["empty"] = await text(page, "#empty")
    await page.click("#clear")
    await page.wait("the others", f"{ROWS}.length === 1")
    result["others"] = await texts(page, "#rows td:nth-child(2) span")
    result["markup"] = await page.value("document.querySelectorAll('#rows i').length")
    return result


async def drain(page):
    """Drains who is left, who needs to be asked twice since that is everybody."""
    await page.wait("the button", "!document.getElementById('drain').hidden")
    result = {"button": await text(page, "#drain")}
    await page.click("#drain")
    await page.wait("the question", "document.getElementById('draining').open")
    result["question"] = await text(page, "#draining-what")
    result["cut off when asked"] = (await look(page, "draining", 320, 640, "dark"))[0]
    await page.click("#draining-go")
    # Nothing happens before it is confirmed.
    result["unconfirmed"] = await page.value("document.querySelector('#draining form').checkValidity()")
    await page.click("#draining-sure input")
    await fill(page, "#draining [name=over]", "10m")
    await page.click("#draining-go")
    await page.wait("the drain", "document.querySelector('#drains li button:not([hidden])')")
    result["running"] = await text(page, "#drains")
    result["cut off"] = (await look(page, "drain", 320, 640, "light"))[0]
    await back(page)
    await page.click("#drains li button")
    await page.wait("no more drain", "document.querySelector('#drains li button[hidden]')")
    result["cancelled"] = await text(page, "#drains")
    result["left"] = await page.value(f"{ROWS}.length")
    return result


async def themes(page):
    """The colour behind everything, with the system light, by the button."""
    seen = {}
    for _ in range(3):
        name = await text(page, "#theme")
        seen[name] = await page.value("getComputedStyle(document.body).backgroundColor")
        await page.click("#theme")
    return seen


async def lose(page):
    """The server ends and another one comes."""
    await told("stop")
    await page.wait("no answer", "document.getElementById('state').textContent === 'no answer'")
    lost = await text(page, "[data-name=lost]")
    cut, _ = await look(page, "lost", 320, 640, "light")
    await told("start")
    await page.wait("the next server", LIVE)
    await page.wait("what has happened", "document.querySelector('[data-name=restarted]')")
    return {"banner": lost, "cut off": cut, "back": await text(page, "[data-name=restarted] span")}


async def misled(page):
    """A link with a filter that there is not, which must not look as if it chose something."""
    await page.value("location.hash = 'usr=ann&user=ann'")
    await page.wait("the unknown filter", "!document.getElementById('problem').hidden")
    told = await text(page, "#problem")
    await page.value("location.hash = ''")
    await page.wait("no filter", "document.getElementById('problem').hidden")
    return told


async def use(page, url, view):
    await page.open(url, WATCH)
    await page.wait("all rows", f"{LIVE} && {ROWS}.length === 3")
    shown = {"sockets": await text(page, ".chart strong"), "title": await page.value("document.title")}
    shown["cut off"], colours = {}, {}
    for name, size in SIZES.items():
        shown["cut off"][name], colours[name] = await look(page, name, *size)
    shown["differ"] = colours["light"] != colours["dark"]
    await back(page)
    shown["charts"] = await page.value("[...document.querySelectorAll('.plot')].map(plot => plot.getAttribute('aria-label'))")
    shown["upstreams"] = await text(page, "#upstreams")
    shown["reload"] = await text(page, "#reload")
    await page.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    shown["themes"] = await themes(page)
    shown["modules"] = await page.value(MOVE)
    shown["refusals"] = await page.value(REFUSALS)
    shown["misled"] = await misled(page)
    shown["close"] = await filter_and_close(page)
    shown["drain"] = await drain(page)
    shown["lost"] = await lose(page)
    shown["violations"] = await page.value("violations")
    shown["errors"] = await page.value("errors")
    shown["injected"] = await page.value(INJECT)
    shown["caught"] = await page.value("violations")
    viewer = page.another()
    await viewer.open(view.replace("//", "//ann:secret@"), WATCH)
    await viewer.wait("the other dashboard", LIVE)
    shown["view"] = {
        "tag": await viewer.value("!document.getElementById('reads').hidden"),
        "control": await viewer.value("!document.getElementById('control').hidden"),
        "refused": await viewer.value(
            "fetch(location.origin + location.pathname + 'api/tunnels/close?all=true', { method: 'POST', headers: { 'X-Wssgate': '1' } }).then(answer => answer.status)"
        ),
    }
    return shown


async def main():
    async with running(sys.argv[1], DIRECTORY) as page:
        shown = await use(page, sys.argv[2], sys.argv[3])
    print(json.dumps(shown))


DIRECTORY = pathlib.Path(sys.argv[4])
asyncio.run(main())
