// One line chart over the last hour: axes, one or two lines, and what was at the time under the pointer.

import { draw, make, say } from "./dom.js";
import { minute, clock } from "./format.js";

const HEIGHT = 118, TOP = 8, BOTTOM = 18, LEFT = 46, RIGHT = 6;
/** What is shown: at most an hour, and less while less is known. */
const LONGEST_MS = 3_600_000, SHORTEST_MS = 600_000;

/** The least round number that is not below `value`. */
function roundUp(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map(step => step * unit).find(step => step >= value * 0.999);
}

export class Chart {
  #points = [];
  #now = Date.now();
  #every = 10_000;
  #span = LONGEST_MS;
  #at = null;

  /**
   * `lines` are `{ name, of }`: a value of a point, or null if there is none. `unit` writes a value; `least` is the least
   * upper end of the axis.
   */
  constructor({ title, note, lines, unit, least = 1 }) {
    Object.assign(this, { title, lines, unit, least });
    this.now = make("strong");
    this.more = make("span", { class: "more" });
    this.svg = draw("svg", { height: HEIGHT, "aria-hidden": "true" });
    this.tip = make("div", { class: "tip", hidden: true });
    this.plot = make("div", { class: "plot", tabIndex: 0, role: "img" }, this.svg, this.tip);
    const key = lines.length > 1 ? make("span", { class: "key" }, ...lines.map((line, at) =>
      make("span", { class: `line-${at}` }, line.name))) : undefined;
    this.element = make("article", { class: "chart" },
      make("header", {}, make("h2", {}, title, note ? make("small", {}, " ", note) : ""), key),
      make("p", { class: "now" }, this.now, this.more), this.plot);
    this.plot.onpointermove = event => this.#point(event.clientX - this.plot.getBoundingClientRect().left);
    this.plot.onpointerleave = this.plot.onblur = () => this.#leave();
    this.plot.onkeydown = event => this.#step(event);
    new ResizeObserver(() => this.#draw()).observe(this.plot);
  }

  /** What is now, in words. */
  tell(now, more = "") {
    say(this.now, now);
    say(this.more, more);
  }

  /** Shows these points of the server until `now` by its clock; each stands for `every` milliseconds. */
  show(points, now, every) {
    this.#points = points;
    this.#now = now;
    this.#every = every;
    const known = points.length ? now - points[0].at + every : 0;
    this.#span = Math.min(LONGEST_MS, Math.max(SHORTEST_MS, known));
    this.#draw();
  }

  #x(ms) {
    return LEFT + (this.width - LEFT - RIGHT) * (1 - (this.#now - ms) / this.#span);
  }

  #y(value) {
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / this.top);
  }

  #draw() {
    this.width = this.plot.clientWidth;
    if (!this.width) return;
    const shown = this.#points.filter(point => point.at > this.#now - this.#span);
    const values = shown.flatMap(point => this.lines.map(line => line.of(point) ?? 0));
    this.top = roundUp(Math.max(this.least, ...values));
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    this.svg.replaceChildren(...this.#axes(), ...this.lines.flatMap((line, at) => this.#line(shown, line, at)));
    this.cursor = draw("path", { class: "cursor", d: "" });
    this.svg.append(this.cursor);
    const peaks = this.lines.map(line => {
      const known = shown.map(line.of).filter(value => value !== null);
      return known.length ? `${line.name ?? this.title} at most ${this.unit(Math.max(...known))}` : `${line.name ?? this.title} unknown`;
    });
    const label = shown.length ? `${this.title}, last hour: ${peaks.join(", ")}. Arrow keys show times.` : `${this.title}: nothing yet`;
    this.plot.setAttribute("aria-label", label);
    if (this.#at !== null) this.#showTip();
  }

  #axes() {
    const rules = [], right = this.width - RIGHT;
    for (const share of [0, 0.5, 1]) {
      const y = this.#y(this.top * share);
      rules.push(draw("path", { class: "rule", d: `M${LEFT} ${y}H${right}` }));
      const text = share ? this.unit(this.top * share) : "0";
      rules.push(draw("text", { x: LEFT - 6, y: y + 3.5, "text-anchor": "end" }, text));
    }
    // Times of day that are round, as many as there is room for.
    const room = Math.max(2, Math.floor((this.width - LEFT) / 48));
    const step = [1, 2, 5, 10, 15, 20, 30].find(minutes => this.#span <= minutes * 60_000 * room) * 60_000;
    const zone = new Date(this.#now).getTimezoneOffset() * 60_000;
    for (let ms = Math.floor((this.#now - zone) / step) * step + zone; ms > this.#now - this.#span; ms -= step) {
      const x = this.#x(ms);
      if (x < LEFT + 12 || x > right - 12) continue;
      rules.push(draw("path", { class: "rule", d: `M${x} ${HEIGHT - BOTTOM}v3` }));
      rules.push(draw("text", { x, y: HEIGHT - 4, "text-anchor": "middle" }, minute(ms)));
    }
    return rules;
  }

  #line(points, line, at) {
    let path = "", area = "", from = 0, before = null;
    for (const point of points) {
      const value = line.of(point);
      if (value === null) {
        before = null;
        continue;
      }
      const x = this.#x(point.at).toFixed(1), y = this.#y(value).toFixed(1);
      // No line through a time of which nothing is known.
      const joined = before !== null && point.at - before.at < 2.5 * this.#every;
      if (!joined && before) area += `V${this.#y(0)}H${from}Z`;
      path += `${joined ? "L" : "M"}${x} ${y}${joined ? "" : "h.01"}`;
      area += joined ? `L${x} ${y}` : `M${x} ${this.#y(0)}V${y}`;
      if (!joined) from = x;
      before = point;
      this.end = x;
    }
    if (area) area += `V${this.#y(0)}H${from}Z`;
    const lines = [draw("path", { class: `stroke line-${at}`, d: path })];
    if (at === 0 && this.lines.length === 1) lines.unshift(draw("path", { class: `area line-${at}`, d: area }));
    return lines;
  }

  #point(x) {
    const ms = this.#now - this.#span * (1 - (x - LEFT) / (this.width - LEFT - RIGHT));
    const nearest = this.#points.reduce((best, point) =>
      !best || Math.abs(point.at - ms) < Math.abs(best.at - ms) ? point : best, null);
    this.#at = nearest && Math.abs(nearest.at - ms) < 60_000 ? nearest.at : null;
    this.#showTip();
  }

  #step(event) {
    const direction = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") this.#leave();
    if (!direction || !this.#points.length) return;
    event.preventDefault();
    const last = this.#points.length - 1, at = this.#points.findIndex(point => point.at === this.#at);
    const next = at < 0 ? last : Math.min(last, Math.max(0, at + direction * (event.shiftKey ? 6 : 1)));
    this.#at = this.#points[next].at;
    this.#showTip();
    this.plot.setAttribute("aria-label", this.tip.innerText.replaceAll("\n", ", "));
  }

  #leave() {
    this.#at = null;
    this.#showTip();
  }

  #showTip() {
    const point = this.#points.find(one => one.at === this.#at);
    this.tip.hidden = !point;
    this.cursor?.setAttribute("d", point ? `M${this.#x(point.at)} ${TOP}V${HEIGHT - BOTTOM}` : "");
    if (!point) return;
    const values = this.lines.map((line, at) => {
      const value = line.of(point);
      return make("span", { class: `line-${at}` }, line.name ? `${line.name} ` : "", make("b", {}, value === null ? "–" : this.unit(value)));
    });
    this.tip.replaceChildren(make("time", {}, clock(point.at)), ...values);
    const x = this.#x(point.at);
    this.tip.classList.toggle("left", x > this.width / 2);
    this.tip.style.setProperty("--x", `${x > this.width / 2 ? this.width - x : x}px`);
  }
}
