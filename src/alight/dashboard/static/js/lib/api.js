// Talks to the server's JSON API. Errors have a message and a hint, in the server's words.

const BASE = "/api/v1/";

/** What the server said no to, or that it could not be reached (status 0). */
export class Refused extends Error {
  constructor(status, { code = "", message = "", hint = "" } = {}) {
    super(message || `The server answered ${status}.`);
    Object.assign(this, { status, code, hint });
  }
}

const session = { me: null, skew: 0, onLost: () => {} };

export const me = () => session.me;

/** `then` is called when the server does not know this browser any more. */
export function whenLoggedOut(then) {
  session.onLost = then;
}

/** The server's clock, in unix seconds: ages stay right on a laptop whose clock is wrong. */
export const now = () => Date.now() / 1000 + session.skew;

/** Who is looking; null when nobody is logged in. */
export async function loadMe() {
  const before = Date.now() / 1000;
  try {
    session.me = await get("me");
  } catch (error) {
    if (error.status !== 401) throw error;
    session.me = null;
    return null;
  }
  if (session.me.now) session.skew = session.me.now - (before + Date.now() / 1000) / 2;
  return session.me;
}

export function renewed({ csrf }) {
  if (session.me && csrf) session.me.csrf = csrf;
}

/** The URL of a path of the API. Parameters that are "", null, undefined or false are left out. */
export function url(path, parameters = {}) {
  const kept = Object.entries(parameters).filter(([, value]) => value !== "" && value != null && value !== false);
  const query = new URLSearchParams(kept.map(([name, value]) => [name, value === true ? "1" : String(value)]));
  return BASE + path + (kept.length ? `${path.includes("?") ? "&" : "?"}${query}` : "");
}

export async function get(path, parameters = {}, signal = undefined) {
  return answer(() => patient(url(path, parameters), { signal, headers: { accept: "application/json" } }));
}

/**
 * A fetch that is tried again: browsers break requests off whenever a network interface of their machine comes or goes,
 * and each container brings one. Only for what changes nothing.
 */
export async function patient(address, options) {
  for (let pause = 100; ; pause *= 2) {
    try {
      return await fetch(address, options);
    } catch (error) {
      if (error.name === "AbortError" || pause > 1000) throw error;
      await new Promise((then) => setTimeout(then, pause));
    }
  }
}

export async function post(path, body = {}) {
  const headers = { "content-type": "application/json", "x-alight-csrf": session.me?.csrf ?? "" };
  return answer(() => fetch(url(path), { method: "POST", headers, body: JSON.stringify(body) }));
}

async function answer(ask) {
  let response;
  try {
    response = await ask();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, { message: "The server cannot be reached.", hint: "alight server status" });
  }
  const found = await response.json().catch(() => ({}));
  if (response.ok) return found;
  if (response.status === 401 && session.me) session.onLost();
  throw new Refused(response.status, found.error);
}
