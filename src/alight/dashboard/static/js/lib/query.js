// What is on screen asks the server here, and asks again when an event names it.
import { get, now, url } from "./api.js";
import { listen } from "./events.js";
import { useCallback, useEffect, useRef, useState } from "./html.js";

const PAUSE = 300; // ms between the beginnings of two requests for the same thing, however often it changes
const KEPT = 60; // answers that are shown at once when somebody comes back to a page

const cache = new Map();

function keep(key, data) {
  cache.delete(key);
  cache.set(key, data);
  if (cache.size > KEPT) cache.delete(cache.keys().next().value);
}

/**
 * The answer to GET `path` with `parameters`, kept fresh by events about `topics` and, with `every` (seconds), by time.
 * With `last` (seconds) it asks for what was since then, in the parameter `from`. `path` null asks nothing. `data` stays
 * what it was while a newer one is on its way, so that nothing jumps.
 */
export function useQuery(path, { parameters = {}, topics = [], every = 0, last = 0, from = "since" } = {}) {
  const key = path === null ? null : url(path, { ...parameters, last: last || "" });
  const [, draw] = useState(0);
  const state = useRef({ key: null, data: null, error: null });
  if (state.current.key !== key) state.current = { key, data: cache.get(key) ?? null, error: null };
  const refresh = useRef(() => {});

  useEffect(() => {
    if (key === null) return undefined;
    const stop = new AbortController();
    let [began, running, again, timer] = [0, false, false, null];
    const ask = async () => {
      [began, running, again, timer] = [performance.now(), true, false, null];
      try {
        const data = await get(path, last ? { ...parameters, [from]: now() - last } : parameters, stop.signal);
        keep(key, data);
        state.current = { key, data, error: null };
      } catch (error) {
        if (stop.signal.aborted) return;
        state.current = { ...state.current, error };
      }
      running = false;
      if (stop.signal.aborted) return;
      draw((count) => count + 1);
      if (again) wake();
    };
    const wake = () => {
      if (running || document.hidden) again = true;
      else timer ??= setTimeout(ask, Math.max(0, began + PAUSE - performance.now()));
    };
    const seen = () => !document.hidden && again && !running && wake();
    refresh.current = wake;
    ask();
    const ends = [listen(topics, wake)];
    document.addEventListener("visibilitychange", seen);
    const clock = every ? setInterval(wake, every * 1000) : null;
    return () => {
      stop.abort();
      clearTimeout(timer);
      clearInterval(clock);
      document.removeEventListener("visibilitychange", seen);
      for (const end of ends) end();
    };
  }, [key, topics.join(" "), every]);

  const again = useCallback(() => refresh.current(), []);
  return { ...state.current, loading: state.current.data === null && state.current.error === null, refresh: again };
}

/**
 * A list that the server gives in parts, newest first: `rows` of the first part are kept fresh, `next` loads older ones.
 * `pick` takes the rows out of an answer, `id` names a row.
 */
export function usePages(path, { parameters = {}, topics = [], pick, id, limit = 100 }) {
  const first = useQuery(path, { parameters: { ...parameters, limit }, topics });
  const key = url(path, parameters);
  const [older, setOlder] = useState({ key, rows: [], more: null, error: null });
  const loading = useRef(false);
  const mine = older.key === key ? older : { key, rows: [], more: null, error: null };
  const fresh = first.data ? pick(first.data) : [];
  const known = new Set(fresh.map(id));
  const rows = mine.rows.length ? [...fresh, ...mine.rows.filter((row) => !known.has(id(row)))] : fresh;
  const more = mine.more ?? first.data?.more ?? false;
  const next = async () => {
    if (loading.current || !more || !rows.length) return;
    loading.current = true;
    try {
      const found = await get(path, { ...parameters, limit, before: id(rows[rows.length - 1]) });
      const kept = mine.rows.length ? mine.rows : fresh;
      setOlder({ key, rows: [...kept, ...pick(found)], more: found.more, error: null });
    } catch (error) {
      setOlder({ ...mine, error });
    }
    loading.current = false;
  };
  return { ...first, rows, more, next, error: first.error ?? mine.error };
}

/** A series without what was before its first measurement. */
export function known(data) {
  const { at = [], series = {} } = data ?? {};
  const all = Object.values(series);
  const first = at.findIndex((_, index) => all.some((values) => values[index] != null));
  if (first <= 0) return { at, series };
  return { at: at.slice(first), series: Object.fromEntries(Object.entries(series).map(([name, values]) => [name, values.slice(first)])) };
}

/** True a moment after `value` stopped changing: text that is being typed is not asked for letter by letter. */
export function useSettled(value, after = 250) {
  const [settled, set] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => set(value), after);
    return () => clearTimeout(timer);
  }, [value, after]);
  return settled;
}
