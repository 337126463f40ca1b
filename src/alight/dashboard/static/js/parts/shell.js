// What stands around every page: where one can go, whether the connection lives, the theme, the keys.
import { me, post } from "../lib/api.js";
import { watchConnection } from "../lib/events.js";
import { count } from "../lib/format.js";
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { go } from "../lib/router.js";
import { Dialogs } from "./dialog.js";

const PLACES = [
  ["/", "Apps", "a"], ["/calls", "Calls", "c"], ["/containers", "Containers", "t"], ["/schedules", "Schedules", "s"],
  null,
  ["/machines", "Machines", "m"], ["/volumes", "Volumes", "v"], ["/secrets", "Secrets", "x"], ["/images", "Images", "i"],
  null,
  ["/cost", "Cost", "o"], ["/audit", "Changes", "h"],
];
const BELONGS = { apps: "/", functions: "/" };

export function Frame({ path, children }) {
  const [link, setLink] = useState({ connected: true, counts: null });
  const [keys, setKeys] = useState(false);
  const places = useRef(null);
  useEffect(() => watchConnection(setLink), []);
  useEffect(() => {
    const chosen = places.current.querySelector("[aria-current]");
    if (chosen) places.current.scrollLeft = chosen.offsetLeft - 60; // on a phone they are a line that can be moved
  }, [path]);
  useKeys(setKeys);
  const root = path.split("/")[1];
  const here = BELONGS[root] ?? `/${root}`;
  return html`
    <a class="skip" href="#page">Skip to the page</a>
    <aside class="side">
      <a class="brand" href="/"><img src="/static/icon.svg" alt="" width="20" height="20" />Alight</a>
      <nav aria-label="Pages" ref=${places}>${PLACES.map((place, at) => place === null ? html`<hr key=${at} />` : html`
        <a key=${place[0]} href=${place[0]} aria-current=${place[0] === here ? "page" : undefined}>${place[1]}</a>`)}</nav>
      <${Footer} link=${link} showKeys=${() => setKeys(true)} />
    </aside>
    <main id="page" tabindex="-1">
      ${!link.connected && html`<div class="lost" role="alert">The server does not answer. What is shown may be old; it is asked again every second.</div>`}
      ${children}
    </main>
    <${Dialogs} />
    ${keys && html`<${Keys} close=${() => setKeys(false)} />`}`;
}

function Footer({ link, showKeys }) {
  const { counts, connected } = link;
  const words = counts ? `${count(counts.running)} running, ${count(counts.waiting)} waiting` : "";
  const out = async () => {
    await post("session/end").catch(() => {});
    location.assign("/");
  };
  return html`<div class="below">
    <div class="pulse" title=${me()?.host ? `${me().host}, version ${me().version}` : ""}>
      <i class=${connected ? "good" : "bad"} aria-hidden="true"></i>
      <span class="num">${connected ? words || "connected" : "disconnected"}</span></div>
    <div class="who"><span title="Logged in as">${me()?.who ?? ""}</span>
      <button type="button" class="quiet" onClick=${out}>Log out</button></div>
    <div class="small"><${Theme} /><button type="button" class="quiet" onClick=${showKeys} title="Keys">Keys <kbd>?</kbd></button></div>
  </div>`;
}

const THEMES = { "": "System", light: "Light", dark: "Dark" };

function Theme() {
  const [theme, set] = useState(document.documentElement.dataset.theme ?? "");
  const next = () => {
    const names = Object.keys(THEMES);
    const chosen = names[(names.indexOf(theme) + 1) % names.length];
    if (chosen) document.documentElement.dataset.theme = chosen;
    else delete document.documentElement.dataset.theme;
    try {
      localStorage.setItem("alight.theme", chosen);
    } catch {
      // it holds for this page, then
    }
    window.dispatchEvent(new Event("alight-theme"));
    set(chosen);
  };
  return html`<button type="button" class="quiet" onClick=${next} aria-label=${`Theme: ${THEMES[theme]}`} data-theme-button>
    ${THEMES[theme]} theme</button>`;
}

/** "/" searches, "?" shows the keys, "g" and a letter go to a page. Nothing happens while somebody types. */
function useKeys(setKeys) {
  const going = useRef(0);
  useEffect(() => {
    const press = (event) => {
      const typing = event.target.closest?.("input, textarea, select, .glass, [contenteditable]");
      if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "/") {
        const field = document.querySelector("[data-search]");
        if (!field) return;
        event.preventDefault();
        field.focus();
        field.select();
      } else if (event.key === "?") setKeys(true);
      else if (event.key === "g") going.current = Date.now();
      else if (Date.now() - going.current < 1500) {
        const place = PLACES.find((one) => one?.[2] === event.key);
        going.current = 0;
        if (place) go(place[0]);
      }
    };
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, []);
}

function Keys({ close }) {
  const dialog = useRef(null);
  useEffect(() => dialog.current.showModal(), []);
  const line = (keys, text) => html`<div key=${text}><dt>${keys.map((key) => html`<kbd key=${key}>${key}</kbd>`)}</dt><dd>${text}</dd></div>`;
  return html`<dialog ref=${dialog} onClose=${close} aria-labelledby="keys">
    <h2 id="keys">Keys</h2>
    <dl class="keys">
      ${line(["/"], "Search or filter")}
      ${line(["Esc"], "Clear the filter, close a question")}
      ${line(["↑", "↓"], "From row to row")}
      ${PLACES.filter(Boolean).map(([, name, key]) => line(["g", key], name))}
      ${line(["?"], "These keys")}
    </dl>
    <div class="buttons"><button type="button" onClick=${() => dialog.current.close()}>Close</button></div>
  </dialog>`;
}

