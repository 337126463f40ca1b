// A log of any length: only the lines in sight are in the page. It follows the end until somebody scrolls up.
import { color, pieces, plain } from "../lib/ansi.js";
import { exact, short, stamp } from "../lib/format.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "../lib/html.js";
import { Lines } from "../lib/lines.js";
import { useSettled } from "../lib/query.js";
import { Choice, Empty, Filter, Problem } from "./basics.js";

const HEIGHT = 20; // of a line, as in app.css
const AHEAD = 20;
const LONGEST = 2_000; // characters of a line that are drawn

/** `of` are parameters of GET logs: {container} or {app}, {function}, {call}. `many`: say which container wrote it. */
export function Log({ of, many = false, command }) {
  const [search, setSearch] = useState("");
  const [source, setSource] = useState("");
  const settled = useSettled(search);
  const parameters = { ...of, search: settled, source };
  return html`
    <div class="log">
      <div class="tools">
        <${Filter} value=${search} set=${setSearch} label="Search the log" />
        <${Choice} label="Source" value=${source} set=${setSource}
          options=${[["", "All"], ["stdout", "stdout"], ["stderr", "stderr"], ["system", "system"]]} />
      </div>
      <${Lined} key=${JSON.stringify(parameters)} parameters=${parameters} many=${many} command=${command}
        searched=${settled !== "" || source !== ""} />
    </div>`;
}

function Lined({ parameters, many, command, searched }) {
  const box = useRef(null);
  const lines = useRef(null);
  const follow = useRef(true);
  const moved = useRef(0); // lines that came or went above the first one in sight
  const [high, setHigh] = useState(0);
  const [state, set] = useState({ top: 0, version: 0, atEnd: true, began: false });

  useEffect(() => {
    lines.current = new Lines(parameters, ({ before, dropped }) => {
      moved.current += before - dropped;
      set((old) => ({ ...old, version: old.version + 1, began: true }));
    });
    const quiet = setTimeout(() => set((old) => ({ ...old, began: true })), 1500);
    return () => {
      clearTimeout(quiet);
      lines.current.close();
    };
  }, []);

  useLayoutEffect(() => {
    const fit = () => box.current && setHigh(rest(box.current));
    fit();
    window.addEventListener("resize", fit);
    return () => window.removeEventListener("resize", fit);
  }, []);

  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    if (follow.current) element.scrollTop = element.scrollHeight;
    else if (moved.current) element.scrollTop += moved.current * HEIGHT;
    moved.current = 0;
    look();
  }, [state.version, high]);

  const look = () => {
    const element = box.current;
    const atEnd = element.scrollHeight - element.scrollTop - element.clientHeight < 2 * HEIGHT;
    follow.current = atEnd;
    if (element.scrollTop < 20 * HEIGHT && !atEnd) lines.current?.loadOlder();
    const top = Math.floor(element.scrollTop / HEIGHT);
    set((old) => (old.top === top && old.atEnd === atEnd ? old : { ...old, top, atEnd }));
  };
  const toEnd = () => {
    follow.current = true;
    box.current.scrollTop = box.current.scrollHeight;
  };
  const keys = (event) => {
    if (event.key === "Home" && !event.ctrlKey) lines.current?.loadOlder();
    if (event.key === "End") toEnd();
  };

  const { rows = [], error, ended } = lines.current ?? {};
  const first = Math.max(0, state.top - AHEAD);
  const last = Math.min(rows.length, state.top + Math.ceil((box.current?.clientHeight ?? 600) / HEIGHT) + AHEAD);
  const shown = [];
  for (let at = first; at < last; at += 1) shown.push(html`<${Line} key=${at} at=${at} row=${rows[at]} many=${many} />`);
  return html`
    <div class="screen">
      <div class="lines" ref=${box} style=${{ height: `${high}px` }} tabindex="0" role="log" aria-label="Log" aria-live="off" onScroll=${look} onKeyDown=${keys}>
        <div class="all" style=${{ height: `${rows.length * HEIGHT}px` }}>${shown}</div>
        ${!rows.length && (error
          ? html`<${Problem} error=${error} />`
          : state.began && html`<${Empty} command=${!searched && command}
              title=${searched ? "No line fits." : ended ? "Nothing was written." : "Nothing was written yet."} />`)}
      </div>
      <div class="foot"><span class="num">${rows.length ? `${rows.length.toLocaleString("en-US")} lines` : ""}</span>
        ${rows.length > 0 && error && html`<span class="bad">${error.message}</span>`}
        <span>${ended ? "ended" : state.atEnd ? "following" : ""}</span>
        ${!state.atEnd && html`<button type="button" onClick=${toEnd}>Jump to the end</button>`}</div>
    </div>`;
}

/** What is left of the window below an element's top, less what stands under it. */
export const rest = (element) => Math.max(320, window.innerHeight - element.getBoundingClientRect().top - window.scrollY - 62);

function Line({ row, at, many }) {
  const found = pieces(row.text);
  let left = LONGEST;
  const drawn = [];
  for (const [index, { text, style }] of found.entries()) {
    if (left <= 0) break;
    drawn.push(html`<span key=${index} class=${classes(style)} style=${colors(style)}>${text.slice(0, left)}</span>`);
    left -= text.length;
  }
  const more = left < 0 ? plain(row.text).length - LONGEST : 0;
  return html`<div class=${`line ${row.source}`} style=${{ top: `${at * HEIGHT}px` }}>
    <time title=${exact(row.at)}>${stamp(row.at)}</time>
    ${many && html`<a class="who" href=${row.container_id ? `/containers/${row.container_id}` : undefined}
      title=${row.container_id}>${row.function || short(row.container_id)}</a>`}
    <span class="text">${drawn}${more > 0 && html`<span class="faint"> … ${more.toLocaleString("en-US")} characters more</span>`}</span>
  </div>`;
}

const NAMES = ["bold", "dim", "italic", "underline", "strike"];

function classes(style) {
  const found = NAMES.filter((name) => style[name]);
  return found.length ? found.join(" ") : undefined;
}

function colors({ fg, bg, inverse }) {
  if (fg === undefined && bg === undefined && !inverse) return undefined;
  const [front, back] = inverse ? [bg ?? "inverse", fg ?? "normal"] : [fg, bg];
  const css = (value) => ({ inverse: "var(--log)", normal: "var(--text)" })[value] ?? color(value);
  return { ...(front !== undefined && { color: css(front) }), ...(back !== undefined && { backgroundColor: css(back) }) };
}
