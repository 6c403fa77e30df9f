// The table of live sockets: filters, order, pages, and everything about one.

import { at, list, make, say, visible } from "./dom.js";
import { bytes, count, duration, many, moment, roundTrip, short, whole } from "./format.js";
import { get } from "./server.js";

/** Cards of a phone are longer than lines of a table. */
const ROWS = matchMedia("(max-width: 46rem)").matches ? 15 : 50;

const sum = (socket, of) => (of(socket.from_client) ?? 0) + (of(socket.from_upstream) ?? 0);
const both = (socket, of, write) => [of(socket.from_client), of(socket.from_upstream)].map(value => value === null ? "–" : write(value));

/** A cell of two lines, of which the second explains the first. */
const pair = (first, second) => [first, second];

const COLUMNS = [
  { name: "Socket", sort: "id" },
  { name: "User", write: socket => pair(socket.user ?? "–", socket.subprotocol ?? "") },
  { name: "Client", write: socket => pair(socket.client, "") },
  { name: "Location", write: socket => pair(socket.location, socket.server) },
  { name: "Upstream", write: socket => pair(socket.upstream ?? socket.peer, socket.upstream ? socket.peer : "") },
  { name: "Age", sort: "age", write: socket => pair(duration(socket.age), "") },
  { name: "Idle", sort: "idle", write: socket => pair(duration(socket.idle), "") },
  { name: "Messages", sort: "messages", write: socket => pair(count(sum(socket, side => side.messages)), inAndOut(both(socket, side => side.messages, count))) },
  { name: "Bytes", sort: "bytes", write: socket => pair(bytes(sum(socket, side => side.bytes)), inAndOut(both(socket, side => side.bytes, bytes))) },
  { name: "Rate", sort: "rate", write: socket => pair(`${bytes(socket.rate)}/s`, "") },
  { name: "RTT", sort: "rtt", write: socket => pair(...both(socket, side => side.rtt, roundTrip)) },
];

const inAndOut = ([from, to]) => `↑ ${from} ↓ ${to}`;
const isNumber = column => column.sort && column.sort !== "id";

const form = at("filters"), state = { sort: "age", order: undefined, after: [], unknown: [] };
let asked = 0, shown = null, opened = null;

/** What is filtered by, as requests have it; `""` in a field asks for those without. */
export function filters() {
  const chosen = {};
  for (const input of form.querySelectorAll("input")) {
    const value = input.value.trim();
    if (value) chosen[input.name] = value === '""' ? "" : value;
  }
  return chosen;
}

/** Those that are shown, as words. */
export const matched = () => shown?.matched;

/** Asks for the page again. */
export async function refresh() {
  const number = ++asked;
  const parameters = { ...filters(), sort: state.sort, order: state.order, limit: ROWS, after: state.after.at(-1) };
  let answer;
  try {
    answer = await get("tunnels", parameters);
  } catch (refusal) {
    // What is wrong with a filter is told where it is; that nobody answers is told by the page.
    if (number === asked && refusal.status === 400) complain(refusal.message);
    else if (number === asked) throw refusal;
    return;
  }
  // Another question is on its way.
  if (number !== asked) return;
  complain(state.unknown.length ? `The link has filters that are not known here, and without effect: ${state.unknown.join(", ")}.` : null);
  // The last page may have gone meanwhile.
  if (!answer.tunnels.length && state.after.length) {
    state.after.pop();
    return refresh();
  }
  shown = answer;
  show();
}

function complain(message) {
  at("problem").hidden = !message;
  say(at("problem"), message ?? "");
}

function show() {
  const { tunnels, matched, next } = shown, filtered = Object.keys(filters()).length > 0;
  say(at("matched"), filtered ? `${whole(matched)} match` : many(matched, "open socket"));
  list(at("rows"), tunnels, socket => socket.id, row, fillRow);
  at("empty").hidden = tunnels.length > 0;
  at("scroll").hidden = !tunnels.length;
  say(at("empty"), filtered ? "No socket matches these filters." : "No socket is open. As soon as a client opens a WebSocket, it is here.");
  const first = state.after.length * ROWS;
  say(at("page"), tunnels.length ? `${whole(first + 1)} – ${whole(first + tunnels.length)} of ${whole(matched)}` : "");
  at("previous").disabled = !state.after.length;
  at("next").disabled = !next;
  at("previous").closest("nav").hidden = !state.after.length && !next;
  at("clear").hidden = !filtered;
  say(at("close"), filtered ? "Close matching…" : "Close all…");
  say(at("drain"), filtered ? "Drain matching…" : "Drain all…");
  const names = at("server-names"), known = new Set([...names.children].map(option => option.value));
  for (const { server } of tunnels) {
    if (known.has(server) || known.size >= 100) continue;
    known.add(server);
    names.append(make("option", { value: server }));
  }
}

function row(socket) {
  const open = make("button", { type: "button", class: "link" }, socket.id);
  open.onclick = () => details(socket.id);
  open.setAttribute("aria-label", `Socket ${socket.id}, details`);
  const cells = COLUMNS.slice(1).map(column => {
    const cell = make("td", { class: isNumber(column) ? "number" : "" }, make("span"), make("small"));
    cell.dataset.label = column.name;
    return cell;
  });
  return make("tr", {}, make("th", { scope: "row" }, open, make("small", { class: "tags" })), ...cells);
}

function fillRow(tr, socket) {
  tr.classList.toggle("closing", socket.state === "closing");
  const kind = socket.websocket ? "" : "no WebSocket";
  say(tr.querySelector(".tags"), socket.state === "closing" ? "closing" : kind);
  COLUMNS.slice(1).forEach((column, number) => {
    const cell = tr.children[number + 1], [first, second] = column.write(socket);
    say(cell.firstElementChild, first);
    say(cell.lastElementChild, second);
    cell.title = number < 4 ? [first, second].filter(Boolean).map(visible).join("\n") : "";
  });
}

// --- Order and pages.

function heads() {
  at("columns").replaceChildren(...COLUMNS.map(column => {
    const cell = make("th", { scope: "col", class: isNumber(column) ? "number" : "" });
    if (!column.sort) {
      cell.append(column.name);
      return cell;
    }
    const isChosen = state.sort === column.sort;
    const descends = (state.order ?? (column.sort === "id" ? "asc" : "desc")) === "desc";
    if (isChosen) cell.setAttribute("aria-sort", descends ? "descending" : "ascending");
    const button = make("button", { type: "button", class: "link" }, column.name,
      make("span", { "aria-hidden": "true" }, isChosen ? (descends ? " ↓" : " ↑") : ""));
    button.dataset.sort = column.sort;
    button.onclick = () => {
      sort(column.sort, isChosen ? (descends ? "asc" : "desc") : undefined);
      at("columns").querySelector(`[data-sort=${column.sort}]`).focus();
    };
    cell.append(button);
    return cell;
  }));
  form.elements.sort.value = state.sort;
}

function sort(key, order) {
  Object.assign(state, { sort: key, order, after: [] });
  heads();
  changed();
}

form.elements.sort.onchange = event => sort(event.target.value);
at("next").onclick = () => turn(() => state.after.push(shown.next));
at("previous").onclick = () => turn(() => state.after.pop());

async function turn(change) {
  change();
  await refresh().catch(() => {});
  at("sockets-title").scrollIntoView({ block: "nearest" });
}

// --- Filters, which the address of the page has too.

let pause;
form.oninput = event => {
  if (event.target.name === "sort") return;
  clearTimeout(pause);
  pause = setTimeout(changed, 300);
};
form.onsubmit = event => {
  event.preventDefault();
  changed();
};
form.onreset = () => setTimeout(() => {
  form.elements.sort.value = state.sort;
  changed();
  form.elements.user.focus();
});

function changed() {
  clearTimeout(pause);
  Object.assign(state, { after: [], unknown: [] });
  const words = new URLSearchParams(filters());
  if (state.sort !== "age") words.set("sort", state.sort);
  if (state.order) words.set("order", state.order);
  history.replaceState(null, "", words.size ? `#${words}` : location.pathname + location.search);
  refresh().catch(() => {});
}

// On phones there is room for them only when they are wanted.
at("more").onclick = () => {
  const isOpen = form.classList.toggle("open");
  at("more").setAttribute("aria-expanded", isOpen);
};

function read() {
  const words = new URLSearchParams(location.hash.slice(1));
  for (const input of form.querySelectorAll("input")) {
    const value = words.get(input.name);
    input.value = value === "" ? '""' : value ?? "";
  }
  state.sort = COLUMNS.find(column => column.sort && column.sort === words.get("sort"))?.sort ?? "age";
  state.order = ["asc", "desc"].find(order => order === words.get("order"));
  const known = new Set([...form.elements].map(field => field.name).concat("order"));
  state.unknown = [...new Set(words.keys())].filter(name => name && !known.has(name));
  state.after = [];
  heads();
}

addEventListener("hashchange", () => {
  read();
  refresh().catch(() => {});
});
read();

// --- One of them.

function details(id) {
  opened = id;
  say(at("details-title"), `Socket ${id}`);
  at("details-facts").replaceChildren();
  at("details-sides").replaceChildren();
  at("details").showModal();
  look();
}

at("details").onclose = () => { opened = null; };

/** Asks for the one that is looked at, if there is one. */
export async function look() {
  const id = opened;
  if (id === null) return;
  let socket;
  try {
    socket = await get(`tunnels/${id}`);
  } catch (refusal) {
    if (id !== opened) return;
    say(at("details-note"), refusal.status === 404 ? "It has ended. What you see is the last that was known." : refusal.message);
    at("details-close").disabled = refusal.status === 404;
    return;
  }
  if (id !== opened) return;
  say(at("details-note"), socket.state === "closing" ? "It is being closed." : "");
  at("details-close").disabled = socket.state === "closing";
  const facts = [
    ["User", socket.user ?? "–"], ["Client", socket.client], ["Server", socket.server], ["Location", socket.location],
    ["Upstream", socket.upstream ?? "–"], ["Peer", socket.peer], ["Subprotocol", socket.subprotocol ?? "–"],
    ["Protocol", socket.websocket ? "WebSocket" : "another one"], ["Opened", moment(socket.opened * 1000)],
    ["Age", duration(socket.age)], ["Idle", duration(socket.idle)], ["Mean rate", `${bytes(socket.rate)}/s`],
    ["Generation", String(socket.generation)], ["Worker", String(socket.worker)],
    ["First Close", socket.first_close ? `by the ${socket.first_close}` : "–"],
  ];
  list(at("details-facts"), facts, ([name]) => name, ([name]) => make("div", {}, make("dt", {}, name), make("dd")),
    (element, [, value]) => say(element.lastElementChild, value));
  sides(socket);
}

function sides({ from_client, from_upstream }) {
  const orNone = (value, write) => (value === null ? "–" : write(value));
  const lines = [
    ["Messages", side => orNone(side.messages, whole)], ["Bytes", side => bytes(side.bytes)], ["Pings", side => orNone(side.pings, whole)],
    ["Round trip", side => orNone(side.rtt, roundTrip)], ["Waited for it", side => (side.blocked ? short(side.blocked) : "–")],
    ["Sent Close", side => orNone(side.close, String)], ["Got Close", side => orNone(side.sent_close, String)],
  ];
  const head = make("thead", {}, make("tr", {}, make("td"), make("th", { scope: "col" }, "Client"), make("th", { scope: "col" }, "Upstream")));
  const rows = lines.map(([name, write]) => make("tr", {}, make("th", { scope: "row" }, name),
    make("td", {}, write(from_client)), make("td", {}, write(from_upstream))));
  at("details-sides").replaceChildren(head, make("tbody", {}, ...rows));
}

/** The number of the one that is looked at. */
export const openedId = () => opened;
