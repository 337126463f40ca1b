// One EventSource for the whole page: the server names what changed, and whoever shows it asks again.
import { get, renewed, url } from "./api.js";

const PATIENCE = 2500; // ms without a connection until the page says so

const listeners = new Set();
const watchers = new Set();
const state = { connected: true, counts: null, source: null, greeted: false, late: 0 };

/** Calls `wake` when one of `topics` ("apps", "call:fc-…") changed. Returns a function that ends it. */
export function listen(topics, wake) {
  const listener = { topics: new Set(topics), wake };
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Calls `told` with {connected, counts} now and whenever they change. Returns a function that ends it. */
export function watchConnection(told) {
  watchers.add(told);
  told(shown());
  return () => watchers.delete(told);
}

export function connect() {
  if (state.source) return;
  get("overview").then(({ waiting, running }) => state.counts ?? change({ counts: { waiting, running } }), () => {});
  const source = new EventSource(url("events"));
  state.source = source;
  source.addEventListener("open", () => {
    clearTimeout(state.late);
    change({ connected: true });
  });
  source.addEventListener("error", () => {
    clearTimeout(state.late);
    state.late = setTimeout(() => change({ connected: false }), PATIENCE); // most are over before one has read it
    if (source.readyState === EventSource.CLOSED) again(source); // an answer other than 200: it gives up by itself
  });
  source.addEventListener("hello", (event) => {
    renewed(JSON.parse(event.data));
    if (state.greeted) wakeAll(); // what happened between two connections is not known
    state.greeted = true;
  });
  source.addEventListener("resync", wakeAll);
  source.addEventListener("changed", (event) => {
    const { topics = [], many = [], counts } = JSON.parse(event.data);
    if (counts) change({ counts });
    const named = new Set(topics);
    for (const { topics: wanted, wake } of listeners) {
      if ([...wanted].some((topic) => named.has(topic) || many.includes(topic.split(":")[0]))) wake();
    }
  });
}

export function disconnect() {
  state.source?.close();
  Object.assign(state, { source: null, greeted: false });
}

function again(source) {
  setTimeout(() => {
    if (state.source !== source) return;
    state.source = null;
    state.greeted = true;
    connect();
  }, 2000);
}

function wakeAll() {
  for (const { wake } of listeners) wake();
}

function change(what) {
  if (Object.entries(what).every(([name, value]) => JSON.stringify(state[name]) === JSON.stringify(value))) return;
  Object.assign(state, what);
  for (const told of watchers) told(shown());
}

const shown = () => ({ connected: state.connected, counts: state.counts });
