// Requests to the server, relative to the page.

const LONGEST_WAIT_MS = 10_000;

/** Why there is no answer: `status` is that of a refusal, REDIRECTED or FOREIGN, or 0 if nobody answers. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The answer would be elsewhere, such as at a page to sign in. */
export const REDIRECTED = 1;
/** Somebody else has answered. */
export const FOREIGN = 2;

export const get = (path, parameters) => ask("GET", path, parameters);

/** What changes something; the header shows that no page of others asks. */
export const post = (path, parameters) => ask("POST", path, parameters, { "X-Wssgate": "1" });

async function ask(method, path, parameters = {}, headers = {}) {
  // Without a name and password that stand in the address of the page: nothing may be fetched from such a one.
  const url = new URL("api/" + path, location.origin + location.pathname);
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined) url.searchParams.set(name, value);
  }
  let response;
  try {
    const signal = AbortSignal.timeout(LONGEST_WAIT_MS);
    response = await fetch(url, { method, headers, signal, cache: "no-store", redirect: "manual", credentials: "same-origin" });
  } catch {
    throw new Refusal(0, "the server does not answer");
  }
  if (response.type === "opaqueredirect") throw new Refusal(REDIRECTED, "the answer is a redirect");
  // Whatever is not from the server itself, such as an error page of a proxy between, is no JSON.
  const answer = await response.json().catch(() => undefined);
  if (!response.ok || answer === undefined) {
    throw new Refusal(response.ok ? FOREIGN : response.status, answer?.error ?? `the answer is ${response.status}`);
  }
  return answer;
}
