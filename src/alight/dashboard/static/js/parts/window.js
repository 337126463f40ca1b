// How far back charts look. The choice is part of the URL.
import { html } from "../lib/html.js";
import { useLocation } from "../lib/router.js";
import { Choice } from "./basics.js";

/** Names and seconds. */
export const WINDOWS = { "15m": 900, "1h": 3600, "6h": 21_600, "1d": 86_400, "7d": 604_800 };

export function Windowed({ children, first = "1h" }) {
  const { query, set } = useLocation();
  const chosen = WINDOWS[query.window] ? query.window : first;
  return html`<div class="tools right"><${Choice} label="How far back" value=${chosen} set=${(value) => set({ window: value === first ? "" : value })}
    options=${Object.keys(WINDOWS).map((name) => [name, name])} /></div>${children(chosen)}`;
}
