// One call: how far it is, why it waits, what failed and where, each of its inputs, its log.
import { get } from "../lib/api.js";
import { cashOf, count, duration, plural } from "../lib/format.js";
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { useQuery } from "../lib/query.js";
import { go, useLocation } from "../lib/router.js";
import { Ago, Bar, Choice, Empty, Facts, Head, Id, Loading, Problem, Section, State, Tabs, Took } from "../parts/basics.js";
import { Action } from "../parts/dialog.js";
import { Graph } from "../parts/graph.js";
import { progress, standing } from "../parts/lists.js";
import { Log } from "../parts/log.js";
import { Table } from "../parts/table.js";
import { Traceback } from "../parts/traceback.js";

export function Call({ id }) {
  const { query, set } = useLocation();
  const { data, error, loading, refresh } = useQuery(`calls/${id}`, { topics: [`call:${id}`] });
  const cost = useQuery(`calls/${id}/cost`, { topics: [`call:${id}`] }).data;
  const first = [["Calls", "/calls"]];
  if (error && !data) return html`<${Head} title=${id} crumbs=${first} /><${Problem} error=${error} retry=${refresh} />`;
  if (loading) return html`<${Head} title=${id} crumbs=${first} /><${Loading} />`;
  const { call: details, failure: failed, retryable } = data;
  const { call, waiting } = details;
  const tab = query.tab ?? "overview";
  const crumbs = [["Apps", "/"], [call.app, `/apps/${call.app_id}`], [call.function, `/functions/${call.function_id}`]];
  return html`
    <${Head} title="Call" crumbs=${crumbs} state=${html`<${State} is=${standing(call)} />`} id=${call.call_id} actions=${html`
      ${retryable && html`<${Action} label="Retry" title="Run the failed inputs again?" path=${`calls/${id}/retry`} then=${({ call_id: next }) => next && go(`/calls/${next}`)}
        text=${`${plural(call.failed, "input")} of this call failed. They run again as a call of their own.`} />`}
      ${call.state !== "done" && html`<${Action} label="Cancel" danger title="Cancel this call?" path=${`calls/${id}/cancel`} body=${{ terminate: false }} then=${refresh}
        text="What waits does not run, what runs is interrupted. Results that are there already stay." />`}`} />
    <div class="far"><${Bar} parts=${progress(call)} label="Inputs" />
      <ul class="key">${progress(call).map(({ name, value, tone }) => html`<li key=${tone} class=${value ? "" : "faint"}><i class=${tone} aria-hidden="true"></i><span class="num">${name}</span></li>`)}</ul></div>
    <${Facts} facts=${[
      ["Verb", call.verb], ["Inputs", call.total == null ? `${count(call.accepted)}, more may come` : count(call.total)],
      ["Began", html`<${Ago} at=${call.created_at} />`], ["Took", html`<${Took} from=${call.created_at} to=${call.done_at} />`],
      ["Cost", cost?.cost > 0 && cashOf(cost.currency)(cost.cost)], ["Caller", call.caller_gone && "ended before it had sent all inputs"],
      ["Called by", call.parent_input && html`<code>${call.parent_input}</code>`],
    ]} />
    ${waiting && html`<${Waits} waiting=${waiting} />`}
    ${failed && html`<${Section} title=${call.accepted > 1 ? `What failed last: input ${count(failed.position)}` : "What failed"}>
      ${failed.failure ? html`<${Traceback} failure=${failed.failure} />` : html`<${Problem} error=${{ message: failed.error || failed.status }} />`}<//>`}
    <${Tabs} chosen=${tab} choose=${(name) => set({ tab: name === "overview" ? "" : name })} tabs=${[["overview", "Inputs"], ["logs", "Log"], ["graph", "What it called"]]} />
    ${tab === "overview" && html`<${Inputs} call=${call} />`}
    ${tab === "logs" && html`<${Log} of=${{ call: id }} many />`}
    ${tab === "graph" && html`<${Graph} id=${id} />`}`;
}

const Waits = ({ waiting }) => html`
  <div class=${`note ${waiting.never ? "bad" : "wait"}`}>
    <strong>${waiting.why || "It waits."}</strong>
    <${Facts} facts=${[
      ["Since", waiting.since > 0 && html`<${Ago} at=${waiting.since} />`], ["Needs", waiting.needs],
      ["Ahead of it", waiting.ahead > 0 && plural(waiting.ahead, "input")], ["Starts when", waiting.starts_when],
      ["Held by", waiting.holders?.length > 0 && html`<ul class="plain">${waiting.holders.map((who) => html`<li key=${who}>${who}</li>`)}</ul>`],
    ]} />
    ${waiting.never && html`<p>Nothing that is under way will let it start.</p>`}
  </div>`;

const PART = 200;

function Inputs({ call }) {
  const { query, set } = useLocation();
  const only = query.inputs === "failed";
  const [asked, show] = useState(null);
  return html`
    <div class="tools"><${Choice} label="Which inputs" value=${only ? "failed" : ""} set=${(value) => set({ inputs: value })}
      options=${[["", "All"], ["failed", "Failed"]]} /></div>
    ${only ? html`<${Failed} call=${call} show=${show} />` : html`<${All} call=${call} show=${show} />`}
    ${asked && html`<${Detail} input=${asked} close=${() => show(null)} />`}`;
}

const columns = (show) => [
  { label: "#", width: "64px", num: true, phone: true, cell: ({ position }) => count(position) },
  { label: "State", width: "130px", phone: true, cell: ({ status }) => html`<${State} is=${status || "waiting"} />` },
  { label: "Attempt", width: "76px", num: true, cell: ({ attempt }) => attempt || "–" },
  { label: "Container", width: "minmax(0, 1fr)", cell: ({ container }) => container ? html`<a class="cut" href=${`/containers/${container}`}><code>${container}</code></a>` : html`<span class="faint">–</span>` },
  { label: "What happened", width: "minmax(0, 3fr)", phone: true, cell: (input) => input.failure
    ? html`<button type="button" class="quiet cut bad" onClick=${() => show(input)}>${input.error || input.failure.message}</button>`
    : html`<span class="cut" title=${input.error}>${input.error}</span>` },
];

function All({ call, show }) {
  const stamp = `${call.succeeded} ${call.failed} ${call.running} ${call.accepted}`;
  const { row, seen, error, counted } = useParts(`calls/${call.call_id}/inputs`, stamp);
  const there = Math.max(counted ?? 0, call.accepted);
  if (error) return html`<${Problem} error=${error} />`;
  if (!there) return html`<${Empty} title="No input has come yet." />`;
  return html`<${Table} label="Inputs" columns=${columns(show)} rows=${[]} count=${there} row=${row} named=${({ position }) => position} seen=${seen} />`;
}

/** Those that failed: by position, more as somebody scrolls. */
function Failed({ call, show }) {
  const [state, set] = useState({ rows: [], more: true, error: null });
  const busy = useRef(false);
  const next = async () => {
    if (busy.current || !state.more) return;
    busy.current = true;
    try {
      const start = state.rows.length ? state.rows[state.rows.length - 1].position + 1 : 0;
      const found = await get(`calls/${call.call_id}/inputs`, { status: "failed", start, limit: PART });
      set({ rows: [...state.rows, ...found.inputs], more: found.more, error: null });
    } catch (error) {
      set({ ...state, more: false, error });
    }
    busy.current = false;
  };
  useEffect(() => {
    if (!state.rows.length) next();
  }, []);
  useEffect(() => {
    if (call.failed > state.rows.length && !state.more) set({ ...state, more: true });
  }, [call.failed]);
  useEffect(() => {
    if (state.more && state.rows.length < PART) next();
  }, [state.more]);
  if (state.error) return html`<${Problem} error=${state.error} />`;
  if (!state.rows.length) return state.more ? html`<${Loading} />` : html`<${Empty} title="No input failed." />`;
  return html`<${Table} label="Failed inputs" columns=${columns(show)} rows=${state.rows} named=${({ position }) => position} end=${next} />`;
}

/** Parts of a long list, asked for when they come into sight, and again when `stamp` changes. */
function useParts(path, stamp) {
  const parts = useRef(new Map());
  const sight = useRef([0, 0]);
  const latest = useRef(stamp);
  latest.current = stamp;
  const [state, set] = useState({ error: null, counted: null });
  const ask = async (part) => {
    const before = parts.current.get(part);
    if (before?.stamp === latest.current || before?.busy) return;
    const asked = latest.current;
    parts.current.set(part, { ...before, busy: true });
    try {
      const { inputs, total } = await get(path, { start: part * PART, limit: PART });
      parts.current.set(part, { rows: inputs, stamp: asked });
      set({ error: null, counted: total });
    } catch (error) {
      parts.current.delete(part);
      set((old) => ({ ...old, error }));
    }
  };
  const look = (first, last) => {
    sight.current = [first, last];
    for (let part = Math.floor(first / PART); part <= Math.floor(Math.max(first, last - 1) / PART); part += 1) ask(part);
  };
  useEffect(() => {
    const timer = setTimeout(() => look(...sight.current), 300);
    return () => clearTimeout(timer);
  }, [path, stamp, state.counted]);
  return { ...state, seen: look, row: (at) => parts.current.get(Math.floor(at / PART))?.rows?.[at % PART] };
}

function Detail({ input, close }) {
  const dialog = useRef(null);
  useEffect(() => dialog.current.showModal(), []);
  return html`<dialog class="large" ref=${dialog} onClose=${close} aria-labelledby="input">
    <h2 id="input">Input ${count(input.position)}</h2>
    <p class="faint"><${Id} id=${input.input_id} whole /> attempt ${input.attempt}${input.ended && input.since ? `, ${duration(input.ended - input.since)}` : ""}</p>
    <${Traceback} failure=${input.failure} />
    <div class="buttons"><button type="button" onClick=${() => dialog.current.close()}>Close</button></div></dialog>`;
}
