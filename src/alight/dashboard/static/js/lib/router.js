// Real paths, followed without loading the page again.
import { useEffect, useState } from "./html.js";

const told = new Set();

/** Go to a path of the dashboard. `replace` leaves no step in the history: for filters and tabs. */
export function go(path, { replace = false } = {}) {
  if (path === location.pathname + location.search) return;
  history[replace ? "replaceState" : "pushState"](null, "", path);
  if (!replace) window.scrollTo(0, 0);
  for (const tell of told) tell();
}

/** The path and the query of the page, and a way to change single parameters of the query. */
export function useLocation() {
  const [, draw] = useState(0);
  useEffect(() => {
    const tell = () => draw((number) => number + 1);
    told.add(tell);
    return () => told.delete(tell);
  }, []);
  const query = Object.fromEntries(new URLSearchParams(location.search));
  return { path: location.pathname, query, set };
}

function set(changes) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes)) {
    if (value === "" || value == null) query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  go(location.pathname + (text ? `?${text}` : ""), { replace: true });
}

/** Links of the dashboard are followed in place; with a modifier key, a target or `download` they stay the browser's. */
export function followLinks() {
  window.addEventListener("popstate", () => {
    for (const tell of told) tell();
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href]");
    if (!link || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const to = new URL(link.href);
    if (to.origin !== location.origin || link.target || link.hasAttribute("download")) return;
    if (to.pathname.startsWith("/api/") || to.pathname.startsWith("/login")) return;
    event.preventDefault();
    go(to.pathname + to.search);
  });
}
