// Elements: all text comes in as text, never as markup.

export const at = id => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";

/** An element with properties and children; `class` and names with a hyphen are attributes. */
export function make(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** The same of SVG, where all are attributes. */
export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined) continue;
    if (name === "class" || name.includes("-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  const given = children.filter(child => child !== undefined && child !== null);
  element.append(...given.map(child => typeof child === "string" ? visible(child) : child));
  return element;
}

const INVISIBLE = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g;
const SHORT = { "\t": "\\t", "\r": "\\r", "\n": "\\n" };

/** A text in which nothing hides or turns others around: such characters are escaped, as `wssgate ctl` does it. */
export const visible = text =>
  text.replace(INVISIBLE, character => SHORT[character] ?? `\\u{${character.charCodeAt(0).toString(16)}}`);

/** Changes a text only if it is another one, so that nothing is selected or read aloud anew. */
export function say(element, text) {
  const shown = visible(text);
  if (element.textContent !== shown) element.textContent = shown;
}

/** Makes the children of `parent` one for each of `items`, which keep theirs by their keys. */
export function list(parent, items, key, create, update) {
  const known = new Map([...parent.children].map(child => [child.dataset.key, child]));
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = known.get(name);
    known.delete(name);
    if (!child) {
      child = create(item);
      child.dataset.key = name;
    }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    update(child, item);
  }
  for (const child of known.values()) child.remove();
  // Whatever is moved loses it.
  if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
}
