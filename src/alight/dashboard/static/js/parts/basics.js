// The small things that every page is made of.
import { duration, exact, ago, short } from "../lib/format.js";
import { now } from "../lib/api.js";
import { html, useEffect, useRef, useState } from "../lib/html.js";

const clocks = new Set();
setInterval(() => {
  if (!document.hidden) for (const tick of clocks) tick();
}, 1000);

function useClock(runs = true) {
  const [, draw] = useState(0);
  useEffect(() => {
    if (!runs) return undefined;
    const tick = () => draw((number) => number + 1);
    clocks.add(tick);
    return () => clocks.delete(tick);
  }, [runs]);
}

/** "3 min ago", kept true; the exact time on hover. */
export function Ago({ at }) {
  useClock(Boolean(at));
  if (!at) return html`<span class="faint">–</span>`;
  return html`<time class="num" dateTime=${new Date(at * 1000).toISOString()} title=${exact(at)}>${ago(at)}</time>`;
}

/** How long it took, or takes until now. */
export function Took({ from, to }) {
  useClock(!to);
  return html`<span class="num">${duration(Math.max(0, (to || now()) - from))}</span>`;
}

const TONES = {
  running: "live", ready: "good", starting: "wait", waiting: "wait", deployed: "good", detached: "live", done: "calm",
  success: "good", succeeded: "good", stopped: "calm", ended: "calm", cancelled: "calm", paused: "calm", failed: "bad",
  exception: "bad", init_failure: "bad", timeout: "bad", terminated: "bad", impossible: "bad", internal: "bad",
  healthy: "good", ok: "good", lost: "bad", unhealthy: "bad", held: "wait",
};

/** A state as a dot and a word: colour never stands alone. */
export const State = ({ is, tone = TONES[is] ?? "calm", children }) =>
  html`<span class=${`state ${tone}`}><i aria-hidden="true"></i>${children ?? (is === "success" ? "succeeded" : String(is).replaceAll("_", " "))}</span>`;

/** An id, shortened unless `whole`, that a click copies. */
export function Id({ id, whole = false }) {
  const [copied, set] = useState(false);
  const copy = async () => {
    await navigator.clipboard?.writeText(id);
    set(true);
    setTimeout(() => set(false), 1200);
  };
  return html`<button class="id" type="button" title=${`Copy ${id}`} onClick=${copy}>
    ${copied ? "copied" : whole ? id : short(id)}</button>`;
}

export const Problem = ({ error, retry }) => html`
  <div class="note bad" role="alert">
    <strong>${error.message}</strong>
    ${error.hint && html`<p>${error.hint}</p>`}
    ${retry && html`<p><button type="button" onClick=${retry}>Try again</button></p>`}
  </div>`;

/** What stands where nothing is yet: a sentence and the next command. */
export const Empty = ({ title, command, children }) => html`
  <div class="empty">
    <p>${title}</p>
    ${children && html`<p class="faint">${children}</p>`}
    ${command && html`<${Command} text=${command} />`}
  </div>`;

/** A command line that a click copies. */
export function Command({ text }) {
  const [copied, set] = useState(false);
  const copy = async () => {
    await navigator.clipboard?.writeText(text);
    set(true);
    setTimeout(() => set(false), 1200);
  };
  return html`<button class="command" type="button" title="Copy" onClick=${copy}>
    <code>${text}</code><span class="faint">${copied ? "copied" : "copy"}</span></button>`;
}

/** A number with its name. `of` is small print below. */
export const Tile = ({ label, value, of, tone }) => html`
  <div class=${`tile ${tone ?? ""}`}><dt>${label}</dt><dd>${value}${of != null && html`<small>${of}</small>`}</dd></div>`;

export const Tiles = ({ children }) => html`<dl class="tiles">${children}</dl>`;

/** Names and values, one beneath the other. Values that are null are left out. */
export const Facts = ({ facts }) => html`
  <dl class="facts">${facts.filter(([, value]) => value != null && value !== "" && value !== false).map(
    ([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`,
  )}</dl>`;

export const Section = ({ title, aside, children }) => html`
  <section><header class="section"><h2>${title}</h2>${aside}</header>${children}</section>`;

/** The head of a page: where it belongs, its name, state and what can be done. */
export function Head({ title, crumbs = [], state, actions, id, children }) {
  const text = useRef("");
  useEffect(() => {
    text.current = [title, ...crumbs.map(([name]) => name).reverse(), "Alight"].filter(Boolean).join(" · ");
    document.title = text.current;
  }, [title]);
  return html`
    <header class="head">
      <nav aria-label="Where this belongs" class="crumbs">
        ${crumbs.map(([name, href]) => html`<a key=${href} href=${href}>${name}</a><span aria-hidden="true">/</span>`)}
      </nav>
      <div class="title"><h1>${title}</h1>${state}${id && html`<${Id} id=${id} />`}
        <div class="actions">${actions}</div></div>
      ${children && html`<div class="under">${children}</div>`}
    </header>`;
}

/** Tabs whose choice is part of the URL. */
export function Tabs({ tabs, chosen, choose }) {
  const line = useRef(null);
  useEffect(() => {
    const one = line.current.querySelector("[aria-selected=true]");
    if (one) line.current.scrollLeft = one.offsetLeft - line.current.offsetLeft - 60; // on a phone they are a line that can be moved
  }, [chosen]);
  return html`<div class="tabs" role="tablist" ref=${line}>${tabs.filter(Boolean).map(([name, label, number]) => html`
    <button key=${name} type="button" role="tab" aria-selected=${name === chosen} onClick=${() => choose(name)}>
      ${label}${number != null && html`<span class="faint num">${number}</span>`}</button>`)}</div>`;
}

/** Places of a fixed height that stand for what is being loaded. */
export const Loading = ({ rows = 5 }) => html`
  <div class="loading" aria-busy="true" aria-label="Loading">${Array.from({ length: rows }, (_, at) => html`<i key=${at}></i>`)}</div>`;

/** The page's filter: "/" jumps to it, Esc clears it and then leaves it. */
export function Filter({ value, set, label = "Filter" }) {
  const escape = (event) => {
    if (event.key !== "Escape") return;
    if (value) set("");
    else event.target.blur();
  };
  return html`<label class="filter"><span class="hidden">${label}</span>
    <input type="search" data-search placeholder=${label} value=${value} autocomplete="off" spellcheck=${false}
      onInput=${(event) => set(event.target.value)} onKeyDown=${escape} /><kbd aria-hidden="true">/</kbd></label>`;
}

/** A choice of few, all visible. */
export const Choice = ({ options, value, set, label }) => html`
  <div class="choice" role="radiogroup" aria-label=${label}>${options.map(([name, text]) => html`
    <button key=${name} type="button" role="radio" aria-checked=${name === value} onClick=${() => set(name)}>${text}</button>`)}</div>`;

/** Parts of a whole as one bar. Each: {name, value, tone}. */
export function Bar({ parts, label }) {
  const total = parts.reduce((sum, { value }) => sum + value, 0) || 1;
  return html`<div class="bar" role="img" aria-label=${label}>${parts.filter(({ value }) => value > 0).map(
    ({ name, value, tone }) => html`<i key=${name} class=${tone} title=${name} style=${{ flexGrow: value / total }}></i>`,
  )}</div>`;
}
