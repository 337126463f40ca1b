// One call: how far it is, why it waits, what failed and where, each of its inputs, its log.
import { get } from "../lib/api.js";
import { count, duration, money, plural } from "../lib/format.js";
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
  const first = [["Calls", "/calls"]];
  if (error && !data) return html`<${Head} title=${id} crumbs=${first} /><${Problem} error=${error} retry=${refresh} />`;
  if (loading) return html`<${Head} title=${id} crumbs=${first} /><${Loading} />`;
  const { call: details, failure, error: wrong, retryable, cost } = data;
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
      ["Cost", cost && money(cost.total ?? cost.cost)], ["Caller", call.caller_gone && "ended before it had sent all inputs"],
      ["Called by", call.parent_input && html`<code>${call.parent_input}</code>`],
    ]} />
    ${waiting && html`<${Waits} waiting=${waiting} />`}
    ${(failure || wrong) && html`<${Section} title="What failed last">${failure ? html`<${Traceback} failure=${failure} />` : html`<${Problem} error=${wrong} />`}<//>`}
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
  const total = only ? call.failed : call.accepted;
  const [asked, show] = useState(null);
  const stamp = `${call.succeeded} ${call.failed} ${call.running} ${call.accepted}`;
  const { row, seen, error, counted } = useParts(`calls/${call.call_id}/inputs`, only, stamp);
  const columns = [
    { label: "#", width: "84px", num: true, phone: true, cell: ({ position }) => count(position) },
    { label: "State", width: "130px", phone: true, cell: ({ status }) => html`<${State} is=${status || "waiting"} />` },
    { label: "Attempt", width: "76px", num: true, cell: ({ attempt }) => attempt || "–" },
    { label: "Container", width: "minmax(0, 1fr)", cell: ({ container }) => container ? html`<a class="cut" href=${`/containers/${container}`}><code>${container}</code></a>` : html`<span class="faint">–</span>` },
    { label: "What happened", width: "minmax(0, 3fr)", phone: true, cell: (input) => input.failure
      ? html`<button type="button" class="quiet cut bad" onClick=${() => show(input)}>${input.error || input.failure.message}</button>`
      : html`<span class="cut" title=${input.error}>${input.error}</span>` },
  ];
  const there = counted ?? total;
  return html`
    <div class="tools"><${Choice} label="Which inputs" value=${only ? "failed" : ""} set=${(value) => set({ inputs: value })}
      options=${[["", "All"], ["failed", "Failed"]]} /></div>
    ${error ? html`<${Problem} error=${error} />`
      : there === 0 ? html`<${Empty} title=${only ? "No input failed." : "No input has come yet."} />`
      : html`<${Table} label="Inputs" columns=${columns} rows=${[]} count=${there} row=${row} key=${({ position }) => position} seen=${seen} />`}
    ${asked && html`<${Detail} input=${asked} close=${() => show(null)} />`}`;
}

/** Parts of a long list, asked for when they come into sight, and again when `stamp` changes. */
function useParts(path, failed, stamp) {
  const parts = useRef(new Map());
  const sight = useRef([0, 0]);
  const [state, set] = useState({ error: null, counted: null });
  const ask = async (part) => {
    const before = parts.current.get(part);
    if (before?.stamp === stamp || before?.busy) return;
    parts.current.set(part, { ...before, busy: true });
    try {
      const { inputs, total } = await get(path, { status: failed ? "failed" : "all", start: part * PART, limit: PART });
      parts.current.set(part, { rows: inputs, stamp });
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
    parts.current.clear();
    set({ error: null, counted: null });
  }, [path, failed]);
  useEffect(() => {
    const timer = setTimeout(() => look(...sight.current), 300);
    return () => clearTimeout(timer);
  }, [path, failed, stamp]);
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
