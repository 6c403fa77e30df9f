// The page: asks for the overview every two seconds while somebody looks, and shows it.

import "./theme.js";
import { allow, drains } from "./actions.js";
import { Chart } from "./chart.js";
import { at, list, make, say } from "./dom.js";
import { bytes, clock, count, day, duration, many, moment, short, whole } from "./format.js";
import { FOREIGN, get, REDIRECTED } from "./server.js";
import { look, refresh } from "./sockets.js";

const EVERY_MS = 2000;
/** Rates of now are those of so long. */
const RECENT_MS = 10_000;
const DAY = 86_400;

const perSecond = of => point => (point.span ? (of(point) * 1000) / point.span : null);
const total = numbers => Object.values(numbers).reduce((sum, number) => sum + number, 0);
const rate = value => `${count(value)}/s`;
const byteRate = value => `${bytes(value)}/s`;
const BOTH = ["clients", "upstreams"];
const ofBoth = of => BOTH.map((name, side) => ({ name, of: of(side) }));

const charts = {
  sockets: new Chart({ title: "Sockets", lines: [{ of: point => point.tunnels }], unit: count, least: 4 }),
  turns: new Chart({
    title: "Opens and ends", unit: rate, least: 0.2,
    lines: [{ name: "opened", of: perSecond(point => point.opened) }, { name: "ended", of: perSecond(point => total(point.ends)) }],
  }),
  messages: new Chart({ title: "Messages", lines: ofBoth(side => perSecond(point => point.messages[side])), unit: rate }),
  bytes: new Chart({ title: "Bytes", lines: ofBoth(side => perSecond(point => point.bytes[side])), unit: byteRate, least: 100 }),
  rtt: new Chart({
    title: "Round trips", note: "of clients", unit: short, least: 0.002,
    lines: [{ name: "median", of: point => point.rtt[0][0] }, { name: "95 %", of: point => point.rtt[0][1] }],
  }),
  failed: new Chart({ title: "Failed handshakes", lines: [{ of: perSecond(point => point.failed) }], unit: rate, least: 0.2 }),
};
at("charts").append(...Object.values(charts).map(chart => chart.element));

// --- What is known.

let points = [], next = 0, began, process, recent = [], lostAt = 0, answeredAt = 0;

/** Takes in an overview; whether the server is another process than the one before. */
function adopt({ status, counters, history }) {
  const name = `${status.pid} ${status.started}`, isAnother = process !== undefined && process !== name;
  // What a gone process has counted says nothing of this one, nor do points that a reload has begun anew.
  if (process !== name || history.began !== began || history.next < next) {
    points = [];
    recent = [];
    began = history.began;
  }
  process = name;
  points = [...points, ...history.points].slice(-history.keeps);
  next = history.next;
  recent = recent.filter(one => one.at > counters.at - RECENT_MS && one.at < counters.at).concat(counters);
  return isAnother;
}
async function overview() {
  const answer = await get("overview", { since: next });
  const isPartial = next > 0 && answer.history.next >= next && answer.history.began === began;
  // Not all of another process was asked for.
  if (next > 0 && !isPartial) {
    next = 0;
    return overview();
  }
  if (adopt(answer)) {
    banner("restarted", "note", `The server was restarted ${duration(answer.status.uptime)} ago. Counters and history began anew.`, true);
  }
  show(answer);
}

// --- What is shown.

function show(answer) {
  const { status, upstreams, counters, failures, reload, certificates, history, control } = answer;
  document.title = `${count(counters.tunnels)} sockets · wssgate`;
  say(at("process"), `${status.version} · process ${status.pid} · up ${duration(status.uptime)} · ${many(status.workers, "worker")}`);
  at("reads").hidden = control;
  allow(control, notify);
  showCharts(status, counters, answer.rtt, history);
  showEnds(counters, failures, history);
  showUpstreams(upstreams);
  showReload(status, reload, counters.at / 1000);
  showCertificates(certificates, counters.at / 1000);
  const phases = {
    draining: "The server drains: it accepts no new connections and ends with the last socket.",
    leaving: "The server is about to drain: it still accepts connections, but tells load balancers to go elsewhere.",
    yielding: "Another process accepts connections: this one keeps its WebSockets until they end.",
    stopping: "The server is stopping.",
  };
  banner("phase", "warn", phases[status.phase]);
  banner("reload", "warn", reload.successful ? undefined : `The last reload failed (${moment(reload.tried * 1000)}): generation ${status.generation} stays in effect. The error log says why.`);
}

/** What has grown lately, by the second; undefined if there are not two answers yet. */
function lately(of) {
  const first = recent[0], last = recent.at(-1);
  return recent.length < 2 ? undefined : (1000 * (of(last) - of(first))) / (last.at - first.at);
}

function showCharts(status, counters, rtt, history) {
  const every = history.every * 1000, last = points.at(-1);
  for (const chart of Object.values(charts)) chart.show(points, counters.at, every);
  const orNone = (value, write) => (value === undefined || value === null ? "–" : write(value));
  charts.sockets.tell(whole(counters.tunnels), many(status.connections, "connection"));
  charts.turns.tell(orNone(lately(one => one.opened), rate), `opened · ${orNone(lately(one => total(one.ends)), rate)} ended`);
  const sides = (of, write) => {
    const [from, to] = [0, 1].map(side => lately(one => of(one)[side]));
    return [orNone(from, write), `from clients · ${orNone(to, write)} from upstreams`];
  };
  charts.messages.tell(...sides(one => one.messages, rate));
  charts.bytes.tell(...sides(one => one.bytes, byteRate));
  const [median, most] = last?.rtt[0] ?? [null, null];
  charts.rtt.tell(orNone(median, short), median === null ? (rtt[0] ? "no pong lately" : "no ping answered yet") : `median · ${short(most)} for 95 %`);
  const failed = points.reduce((sum, point) => sum + point.failed, 0);
  charts.failed.tell(orNone(lately(one => one.failed), rate), `${whole(failed)} in the ${spanned()}`);
}

/** How much of an hour is known. */
function spanned() {
  const known = points.length ? (points.at(-1).at - points[0].at + points[0].span) / 1000 : 0;
  return known > 3500 || !known ? "last hour" : `last ${duration(known)}`;
}

function showEnds(counters, failures) {
  const ends = {};
  for (const point of points) {
    for (const [cause, number] of Object.entries(point.ends)) ends[cause] = (ends[cause] ?? 0) + number;
  }
  say(at("ends-when"), `${spanned()} · ${whole(total(counters.ends))} since the start`);
  bars(at("ends"), ends, "No socket has ended in this time.");
  bars(at("failures"), failures, "None has failed.");
}

function bars(element, numbers, nothing) {
  const most = Math.max(...Object.values(numbers)), all = total(numbers);
  const items = Object.entries(numbers).filter(([, number]) => number).sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  element.classList.toggle("none", !items.length);
  if (!items.length) {
    element.replaceChildren(make("li", {}, nothing));
    return;
  }
  if (!element.firstElementChild?.dataset.key) element.replaceChildren();
  const create = ([name]) => make("li", {}, make("code", {}, name), make("b"), make("meter", { min: 0, "aria-hidden": "true" }));
  list(element, items, ([name]) => name, create, (item, [, number]) => {
    say(item.children[1], `${whole(number)}`);
    item.title = `${((100 * number) / all).toFixed(1)} %`;
    item.children[2].max = most;
    item.children[2].value = number;
  });
}

const STATES = { up: "up", down: "down", gone: "old connections only" };

function showUpstreams(upstreams) {
  const peers = upstreams.flatMap(group => group.peers);
  const down = peers.filter(peer => peer.state === "down").length;
  say(at("upstreams-count"), peers.length ? `${whole(peers.length)}${down ? `, ${whole(down)} down` : ", all in use"}` : "");
  at("upstreams-count").classList.toggle("bad", down > 0);
  const element = at("upstreams");
  if (!peers.length) {
    element.replaceChildren(make("p", { class: "empty" }, "No upstream server is configured."));
    return;
  }
  if (!element.firstElementChild?.dataset.key) element.replaceChildren();
  const names = new Map();
  // What is down comes first.
  const isDown = peer => peer.state === "down";
  const downFirst = (all, isBad) => [...all.filter(isBad), ...all.filter(one => !isBad(one))];
  const shown = downFirst(upstreams, group => group.peers.some(isDown));
  const keyed = shown.filter(group => group.peers.length).map(group => {
    // Groups of different places may have one name.
    const seen = names.get(group.name) ?? 0;
    names.set(group.name, seen + 1);
    return { ...group, peers: downFirst(group.peers, isDown), key: `${group.name} ${seen}` };
  });
  list(element, keyed, group => group.key, upstreamGroup, (item, group) => {
    list(item.querySelector("tbody"), group.peers, peer => peer.address, peerRow, fillPeer);
  });
  const options = at("upstream-names");
  list(options, [...names.keys()].slice(0, 200), name => name, name => make("option", { value: name }), () => {});
}

function upstreamGroup(group) {
  const heads = ["Server", "Sockets", "Connections", "Failures"].map((name, number) => make("th", { scope: "col", class: number ? "number" : "" }, name));
  return make("div", { class: "scroll" }, make("table", { class: "peers" },
    make("caption", {}, group.name), make("thead", {}, make("tr", {}, ...heads)), make("tbody")));
}

function peerRow() {
  const number = () => make("td", { class: "number" });
  return make("tr", {}, make("th", { scope: "row" }, make("span", { class: "dot" }), make("span"), make("small")), number(), number(), number());
}

function fillPeer(row, peer) {
  const [name, ...numbers] = row.children;
  row.className = peer.state;
  say(name.children[1], peer.address);
  const wanted = peer.override ? "changed by command" : "";
  say(name.children[2], [peer.state === "up" ? "" : STATES[peer.state] ?? peer.state, wanted].filter(Boolean).join(", "));
  name.children[0].title = STATES[peer.state] ?? peer.state;
  [peer.tunnels, peer.connections, peer.failures].forEach((value, at) => say(numbers[at], whole(value)));
}

function facts(element, pairs) {
  list(element, pairs, ([name]) => name, ([name]) => make("div", {}, make("dt", {}, name), make("dd")), (item, [, value, kind]) => {
    say(item.lastElementChild, value);
    item.lastElementChild.className = kind ?? "";
  });
}

const ago = (then, now) => `${duration(Math.max(0, now - then))} ago`;

function showReload(status, reload, now) {
  const older = Object.entries(status.tunnels_by_generation).filter(([name, number]) => name !== String(status.generation) && number);
  facts(at("reload"), [
    ["Generation", String(status.generation)],
    ["In effect since", `${moment(reload.succeeded * 1000)} (${ago(reload.succeeded, now)})`],
    ["Last reload", lastReload(reload, now), !reload.successful ? "bad" : reload.successes ? "good" : ""],
    ["Reloads", `${whole(reload.successes)} good, ${whole(reload.failures)} failed`],
    ["On older ones", older.length ? older.map(([name, number]) => `${many(number, "socket")} on ${name}`).join(", ") : "no socket"],
  ].filter(([name]) => reload.successes + reload.failures || name !== "Reloads"));
}

function lastReload(reload, now) {
  if (!reload.successes && !reload.failures) return "none since the start";
  return `${reload.successful ? "succeeded" : "failed"} ${ago(reload.tried, now)}`;
}

function showCertificates(certificates, now) {
  const element = at("certificates");
  element.classList.toggle("none", !certificates.length);
  if (!certificates.length) {
    element.replaceChildren(make("li", {}, "No server shows a certificate."));
    return;
  }
  if (!element.firstElementChild?.dataset.key) element.replaceChildren();
  const soonest = [...certificates].sort((a, b) => a.ends - b.ends);
  const create = one => make("li", {}, make("b", {}, one.server), make("span", { class: "when" }), make("small", {}, one.certificate));
  list(element, soonest, one => `${one.server} ${one.certificate}`, create, (item, { ends }) => {
    const left = ends - now;
    item.className = left < 7 * DAY ? "bad" : left < 21 * DAY ? "warn" : "";
    say(item.children[1], left < 0 ? `expired ${day(ends * 1000)}` : `${duration(left)} left, until ${day(ends * 1000)}`);
  });
}

// --- Banners and the state of the connection.

/** Shows a line above everything, or none without a text. What has just happened is shown where one looks: below. */
function banner(name, kind, text, mayGo) {
  const place = at(["done", "lost"].includes(name) ? "toasts" : "banners");
  let element = place.querySelector(`[data-name=${name}]`);
  if (!text) {
    element?.remove();
    return;
  }
  if (!element) {
    element = make("p", { class: `banner ${kind}` }, make("span"));
    element.dataset.name = name;
    if (mayGo) {
      const button = make("button", { type: "button", class: "quiet" }, "Dismiss");
      button.onclick = () => element.remove();
      element.append(button);
    }
    place.append(element);
  }
  element.className = `banner ${kind}`;
  say(element.firstElementChild, text);
}

let fades;
function notify(text, isBad) {
  clearTimeout(fades);
  banner("done", isBad ? "bad" : "good", text, true);
  fades = setTimeout(() => banner("done"), 15_000);
}

function connected() {
  lostAt = 0;
  answeredAt = Date.now();
  banner("lost");
  at("state").className = "state open";
  say(at("state"), at("live").checked ? "live" : "live, table stands still");
  document.body.classList.remove("stale");
}

function lost(refusal) {
  lostAt ||= Date.now();
  at("state").className = "state lost";
  document.body.classList.add("stale");
  const since = answeredAt ? ` What you see is of ${clock(answeredAt)}.` : "";
  const elsewhere = {
    401: "You have to sign in again: load the page anew.",
    404: "There is no dashboard at this place any more. Perhaps a reload has moved it.",
    [REDIRECTED]: "Requests are led elsewhere, perhaps to sign in: load the page anew.",
    [FOREIGN]: "Something else answers in place of the dashboard, perhaps a page to sign in: load the page anew.",
  }[refusal.status];
  if (elsewhere) {
    say(at("state"), "no access");
    banner("lost", "warn", `${elsewhere}${since}`);
  } else if ([403, 421].includes(refusal.status)) {
    say(at("state"), "no access");
    banner("lost", "warn", `You may not look any more (${refusal.message}).${since}`);
  } else {
    say(at("state"), "no answer");
    const why = refusal.status ? `: ${refusal.message}` : "";
    banner("lost", "bad", `No answer since ${clock(lostAt)}${why}. Asking again every two seconds.${since}`);
  }
}

// --- One question after the other, while somebody looks.

let timer, isAsking = false;

async function ask() {
  clearTimeout(timer);
  if (document.hidden || isAsking) return;
  isAsking = true;
  try {
    await overview();
    const busy = document.querySelector("dialog[open]");
    if (at("live").checked && !busy) await refresh();
    await Promise.all([look(), drains()]);
    connected();
  } catch (refusal) {
    lost(refusal);
  }
  isAsking = false;
  timer = setTimeout(ask, EVERY_MS);
}

document.addEventListener("visibilitychange", ask);
at("live").onchange = () => {
  connected();
  ask();
};
ask();
