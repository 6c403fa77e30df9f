// What changes something: closing and draining sockets. Each asks first how many that would be.

import { at, list, make, say } from "./dom.js";
import { duration, many, whole } from "./format.js";
import { get, post } from "./server.js";
import { filters, look, openedId, refresh } from "./sockets.js";

const MAX_REASON_LEN = 123; // bytes, RFC 6455 §5.5

const LABELS = {
  user: "user", client: "client", upstream: "upstream", server: "server", location: "location", subprotocol: "subprotocol",
  generation: "generation",
  min_age: "older than", min_idle: "idle for", min_rate: "bytes/s from", min_rtt: "RTT from",
};

let tell = () => {};

/** Lets whoever `may` do so act; `notify` shows what came of it. */
export function allow(may, notify) {
  tell = notify;
  at("control").hidden = at("details-close").hidden = !may;
}

/** A dialog with a form that is sent, and stays open with what was wrong until it is done. */
class Ask {
  constructor(id) {
    this.id = id;
    this.dialog = at(id);
    this.form = this.dialog.querySelector("form");
    this.form.querySelector(".cancel").onclick = () => this.dialog.close();
    this.form.onsubmit = event => {
      event.preventDefault();
      this.#send();
    };
  }

  /** `what` is a sentence, `go` the word on the button; `send` does it with the fields; `all`: none is left. */
  open({ what, go, all, send }) {
    say(at(`${this.id}-what`), what);
    say(at(`${this.id}-go`), go);
    at(`${this.id}-sure`).hidden = !all;
    const sure = at(`${this.id}-sure`).firstElementChild;
    sure.checked = false;
    sure.required = Boolean(all);
    this.#complain(null);
    this.send = send;
    this.dialog.showModal();
  }

  #complain(message) {
    at(`${this.id}-problem`).hidden = !message;
    say(at(`${this.id}-problem`), message ?? "");
  }

  async #send() {
    const fields = {};
    for (const [name, value] of new FormData(this.form)) if (value.trim()) fields[name] = value.trim();
    if (new TextEncoder().encode(fields.reason ?? "").length > MAX_REASON_LEN) {
      return this.#complain(`The reason may have at most ${MAX_REASON_LEN} bytes.`);
    }
    const button = at(`${this.id}-go`);
    button.disabled = true;
    try {
      tell(await this.send(fields));
      this.dialog.close();
    } catch (refusal) {
      this.#complain(refusal.message);
    } finally {
      button.disabled = false;
    }
    refresh().catch(() => {});
    look();
  }
}

const closing = new Ask("closing"), draining = new Ask("draining");

function described(chosen) {
  const words = Object.entries(chosen).map(([name, value]) => `${LABELS[name]} ${value || "(none)"}`);
  return words.length ? `that match ${words.join(", ")}` : "of this server: no filter is set";
}

/** How many match now; a refusal is shown to whoever has asked. */
async function counted(path, parameters) {
  try {
    const { matched } = await post(path, { ...parameters, dry_run: "true" });
    if (!matched) tell("No socket matches, so there is nothing to do.");
    return matched;
  } catch (refusal) {
    tell(refusal.message, true);
    return 0;
  }
}

at("close").onclick = async () => {
  const chosen = filters(), all = Object.keys(chosen).length ? undefined : "true";
  const matched = await counted("tunnels/close", { ...chosen, all });
  if (!matched) return;
  closing.open({
    what: `This closes ${many(matched, "socket")} ${described(chosen)}. Clients get a Close frame with this code and reason.`,
    go: `Close ${whole(matched)}`,
    all,
    send: async fields => {
      const { closed } = await post("tunnels/close", { ...chosen, all, ...fields });
      return `${many(closed, "socket")} closed.`;
    },
  });
};

at("details-close").onclick = () => {
  const id = openedId();
  closing.open({
    what: `This closes socket ${id}. The client gets a Close frame with this code and reason.`,
    go: "Close it",
    send: async fields => {
      const { closed } = await post(`tunnels/${id}/close`, fields);
      return closed ? `Socket ${id} closed.` : `Socket ${id} was being closed already.`;
    },
  });
};

// --- Drains.

at("drain").onclick = async () => {
  const chosen = filters(), all = Object.keys(chosen).length ? undefined : "true";
  const matched = await counted("drains", { ...chosen, all, over: "1m" });
  if (!matched) return;
  draining.open({
    what: `This closes ${many(matched, "socket")} ${described(chosen)}, one after the other, evenly spread over a time.`,
    go: `Drain ${whole(matched)}`,
    all,
    send: async fields => {
      const { drain } = await post("drains", { ...chosen, all, ...fields });
      drains();
      return `Drain ${drain.id} has begun.`;
    },
  });
};

let isKnown;

/** Asks for the drains that run; a server without them has no button. */
export async function drains() {
  if (isKnown === false) return;
  try {
    const { drains } = await get("drains");
    isKnown = true;
    at("drain").hidden = false;
    // Those that have ended stay for a while, so that whoever has waited sees it.
    const now = Date.now() / 1000;
    const shown = drains.filter(({ state, started, took }) => state === "running" || now - started - took < 60);
    at("drains").hidden = !shown.length;
    list(at("drains"), shown, drain => drain.id, drainItem, fillDrain);
  } catch (refusal) {
    if (refusal.status === 404) isKnown = false;
  }
}

function drainItem(drain) {
  const cancel = make("button", { type: "button", class: "quiet" }, "Cancel");
  cancel.setAttribute("aria-label", `Cancel drain ${drain.id}`);
  cancel.onclick = async () => {
    try {
      await post(`drains/${drain.id}/cancel`);
      tell(`Drain ${drain.id} cancelled: the sockets that were not told yet stay open.`);
    } catch (refusal) {
      tell(refusal.message, true);
    }
    drains();
  };
  return make("li", {}, make("b"), make("span"), make("progress", { max: 1 }), cancel);
}

function fillDrain(item, { id, what, by, state, over, took, tunnels, told }) {
  const [name, text, bar, cancel] = item.children;
  say(name, `Drain ${id}: ${what}`);
  const done = tunnels === null ? "counting" : `${whole(told)} of ${many(tunnels, "socket")} told`;
  const when = state === "running" ? `${duration(took)} of ${duration(over)}` : `${state} after ${duration(took)}`;
  say(text, [done, when, by && `by ${by}`].filter(Boolean).join(" · "));
  bar.value = tunnels ? told / tunnels : 0;
  bar.setAttribute("aria-label", `Drain ${id}`);
  cancel.hidden = state !== "running" || at("control").hidden;
}
