// Lists of any length: only the rows in sight are in the page. Rows have one height, so nothing jumps while they come.
import { html, useEffect, useLayoutEffect, useRef, useState } from "../lib/html.js";

const AHEAD = 8; // rows beyond the window's edges

/**
 * `columns`: {label, width (of a CSS grid), cell(row, position), num, phone (shown on small screens, too)}.
 * `count` rows are there; `row(position)` is one, or undefined while it is not loaded; `named(row)` tells it from others.
 * `seen(first, last)` is called with the positions in sight, `end()` when the last one comes near.
 */
export function Table({ columns, rows, count = rows.length, row = (at) => rows[at], named, label, seen, end, height = 40 }) {
  const body = useRef(null);
  const range = useSight(body, count, height);
  const [first, last] = range;
  useEffect(() => {
    seen?.(first, last);
    if (end && last >= count - 20) end();
  }, [first, last, count]);
  const template = (some) => some.map(({ width }) => width).join(" ");
  const style = {
    "--columns": template(columns),
    "--phone": template(columns.filter(({ phone }) => phone)),
    "--row": `${height}px`,
  };
  const shown = [];
  for (let at = first; at < Math.min(last, count); at += 1) shown.push([at, row(at)]);
  return html`
    <div class="table" role="table" aria-label=${label} aria-rowcount=${count + 1} style=${style}>
      <div class="row top" role="row" aria-rowindex="1">${columns.map((column) => html`
        <div key=${column.label} role="columnheader" class=${kind(column)}>${column.label}</div>`)}</div>
      <div class="rows" role="rowgroup" ref=${body} style=${{ height: `${count * height}px` }} onKeyDown=${walk}>
        ${shown.map(([at, found]) => html`
          <div class="row" role="row" aria-rowindex=${at + 2} key=${found === undefined ? `at ${at}` : named(found)}
            style=${{ transform: `translateY(${at * height}px)` }}>
            ${columns.map((column) => html`<div key=${column.label} role="cell" class=${kind(column)}>
              ${found === undefined ? html`<i class="blank"></i>` : column.cell(found, at)}</div>`)}</div>`)}
      </div>
    </div>`;
}

const kind = ({ num, phone, wrap }) => [num && "num right", !phone && "wide", wrap && "wrap"].filter(Boolean).join(" ");

/** The positions of the rows that the window shows. */
function useSight(body, count, height) {
  const [range, set] = useState([0, Math.min(count, 40)]);
  const now = useRef(range);
  useLayoutEffect(() => {
    let frame = 0;
    const look = () => {
      frame = 0;
      if (!body.current) return;
      const top = -body.current.getBoundingClientRect().top;
      const first = Math.max(0, Math.floor(top / height) - AHEAD);
      const last = Math.max(0, Math.min(count, Math.ceil((top + window.innerHeight) / height) + AHEAD));
      if (first !== now.current[0] || last !== now.current[1]) set((now.current = [Math.min(first, last), last]));
    };
    const later = () => {
      frame ||= requestAnimationFrame(look);
    };
    look();
    window.addEventListener("scroll", later, { passive: true });
    window.addEventListener("resize", later);
    return () => {
      cancelAnimationFrame(frame);
      window.removeEventListener("scroll", later);
      window.removeEventListener("resize", later);
    };
  }, [count, height]);
  return range;
}

/** Up and down go from row to row. */
function walk(event) {
  const step = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
  const row = event.target.closest(".row");
  if (!step || !row || event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
  const wanted = Number(row.ariaRowIndex ?? row.getAttribute("aria-rowindex")) + step;
  const next = row.parentElement.querySelector(`[aria-rowindex="${wanted}"] a, [aria-rowindex="${wanted}"] button`);
  if (!next) return;
  event.preventDefault();
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}

/** The link that makes a whole row clickable. */
export const RowLink = ({ href, children, title }) => html`<a class="whole" href=${href} title=${title}>${children}</a>`;
