// Lists that more than one page shows: calls and containers.
import { count, duration, short } from "../lib/format.js";
import { html } from "../lib/html.js";
import { usePages, useQuery } from "../lib/query.js";
import { Ago, Bar, Empty, Loading, Problem, State, Took } from "./basics.js";
import { RowLink, Table } from "./table.js";

/** How a call stands in one word. */
export function standing(call) {
  if (call.state !== "done") return call.state;
  if (call.cancelled) return "cancelled";
  return call.failed ? "failed" : "succeeded";
}

export const progress = (call) => [
  { name: `${count(call.succeeded)} succeeded`, value: call.succeeded, tone: "good" },
  { name: `${count(call.failed)} failed`, value: call.failed, tone: "bad" },
  { name: `${count(call.running)} running`, value: call.running, tone: "live" },
  { name: `${count(call.waiting)} waiting`, value: call.waiting, tone: "rest" },
];

/** app.function */
const Named = ({ of }) => html`<span class="faint light">${of.app}.</span>${of.function}`;

const Inputs = ({ call }) => html`<span class="inputs"><span class="num">${count(call.succeeded + call.failed)}<span class="faint">
  ${" / "}${call.total == null ? `${count(call.accepted)}+` : count(call.total)}</span></span>
  <${Bar} parts=${progress(call)} label=${progress(call).map(({ name }) => name).join(", ")} /></span>`;

const CALLS = [
  { label: "Call of", width: "minmax(0, 2fr)", phone: true, of: "all",
    cell: (call) => html`<${RowLink} href=${`/calls/${call.call_id}`}><${Named} of=${call} /><//>` },
  { label: "Id", width: "128px", of: "all", cell: (call) => html`<code class="faint" title=${call.call_id}>${short(call.call_id)}</code>` },
  { label: "Call", width: "minmax(0, 2fr)", phone: true, of: "one",
    cell: (call) => html`<${RowLink} href=${`/calls/${call.call_id}`}><code>${call.call_id}</code><//>` },
  { label: "Verb", width: "96px", cell: (call) => call.verb },
  { label: "State", width: "116px", phone: true, cell: (call) => html`<${State} is=${standing(call)} />` },
  { label: "Inputs", width: "minmax(150px, 1fr)", cell: (call) => html`<${Inputs} call=${call} />` },
  { label: "Took", width: "92px", num: true, phone: true, cell: (call) => html`<${Took} from=${call.created_at} to=${call.done_at} />` },
  { label: "Began", width: "84px", num: true, cell: (call) => html`<${Ago} at=${call.created_at} />` },
];

/** Calls of `path`, newest first; older ones come as somebody scrolls. */
export function CallList({ path, parameters = {}, topics, one = false, text = "", command }) {
  const list = usePages(path, { parameters, topics, pick: ({ calls }) => calls, id: ({ call_id: id }) => id });
  const { data, error, loading, refresh, rows, next } = list;
  if (error && !data) return html`<${Problem} error=${error} retry=${refresh} />`;
  if (loading) return html`<${Loading} />`;
  const wanted = text.trim().toLowerCase();
  const shown = wanted ? rows.filter((call) => `${call.call_id} ${call.app} ${call.function}`.toLowerCase().includes(wanted)) : rows;
  if (!shown.length) return html`<${Empty} title=${wanted || parameters.state ? "No call fits." : "Nothing was called yet."} command=${!wanted && command} />`;
  const columns = CALLS.filter(({ of }) => of !== (one ? "all" : "one"));
  return html`<${Table} label="Calls" columns=${columns} rows=${shown} named=${({ call_id: id }) => id} end=${next} />`;
}

export const alive = ({ state }) => state !== "ended";

/** How a container ended, or how it is. */
export function Condition({ container }) {
  const { state, exit_code: code, signal, why } = container;
  if (state !== "ended") return html`<${State} is=${state} />`;
  const bad = Boolean(signal || code);
  return html`<${State} is="ended" tone=${bad ? "bad" : "calm"}><span class="cut" title=${why}>
    ${signal ? `signal ${signal}` : code ? `exit ${code}` : "ended"}</span><//>`;
}

const CONTAINERS = [
  { label: "Container of", width: "minmax(0, 2fr)", phone: true, of: "all",
    cell: (one) => html`<${RowLink} href=${`/containers/${one.container_id}`}><${Named} of=${one} /><//>` },
  { label: "Id", width: "128px", of: "all", cell: (one) => html`<code class="faint" title=${one.container_id}>${short(one.container_id)}</code>` },
  { label: "Container", width: "minmax(0, 2fr)", phone: true, of: "one",
    cell: (one) => html`<${RowLink} href=${`/containers/${one.container_id}`}><code>${one.container_id}</code><//>` },
  { label: "State", width: "116px", phone: true, cell: (one) => html`<${Condition} container=${one} />` },
  { label: "Machine", width: "minmax(0, 1fr)", cell: (one) => html`<a class="cut" href=${`/machines/${one.node_id}`}>${one.machine}</a>` },
  { label: "GPUs", width: "60px", num: true, cell: (one) => one.gpus.length || "–" },
  { label: "Start", width: "120px", num: true, cell: (one) => (one.total == null ? "–" : html`<span title=${one.how}>${duration(one.total)}</span>`) },
  { label: "Lived", width: "92px", num: true, phone: true, cell: (one) => html`<${Took} from=${one.created_at} to=${one.ended_at} />` },
  { label: "Began", width: "84px", num: true, cell: (one) => html`<${Ago} at=${one.created_at} />` },
];

/** Containers of `parameters`, of them those that `keep` takes and whose names have `text` in them. */
export function ContainerList({ parameters = {}, topics = ["containers"], one = false, text = "", command, keep = () => true }) {
  const { data, error, loading, refresh } = useQuery("containers", { parameters: { limit: 1000, ...parameters }, topics });
  if (error && !data) return html`<${Problem} error=${error} retry=${refresh} />`;
  if (loading) return html`<${Loading} />`;
  const wanted = text.trim().toLowerCase();
  const rows = data.containers.filter((row) => keep(row) && `${row.container_id} ${row.app} ${row.function} ${row.machine}`.toLowerCase().includes(wanted));
  if (!rows.length) return html`<${Empty} title=${wanted ? "No container fits." : parameters.all ? "No container was started yet." : "No container is running."} command=${!wanted && command} />`;
  const columns = CONTAINERS.filter(({ of }) => of !== (one ? "all" : "one"));
  return html`<${Table} label="Containers" columns=${columns} rows=${rows} named=${({ container_id: id }) => id} />`;
}
