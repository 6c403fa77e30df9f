// Light, dark, or as the system has it; kept in this browser.

import { at, say } from "./dom.js";

const KINDS = ["auto", "light", "dark"], KEY = "wssgate-theme";

let kind = "auto";
try {
  kind = localStorage.getItem(KEY) ?? kind;
} catch {
  // Then it is forgotten with the page.
}

function show() {
  if (!KINDS.includes(kind)) kind = "auto";
  document.documentElement.dataset.theme = kind;
  say(at("theme"), `Theme: ${kind}`);
}

at("theme").onclick = () => {
  kind = KINDS[(KINDS.indexOf(kind) + 1) % KINDS.length];
  try {
    localStorage.setItem(KEY, kind);
  } catch {
    // As above.
  }
  show();
};
show();
