// Who changed what from the dashboard.
import { moment } from "../lib/format.js";
import { html, useState } from "../lib/html.js";
import { useQuery } from "../lib/query.js";
import { Empty, Filter, Head, Loading, Problem, State } from "../parts/basics.js";
import { Table } from "../parts/table.js";

const COLUMNS = [
  { label: "When", width: "112px", phone: true, num: true, cell: ({ at }) => moment(at) },
  { label: "Who", width: "minmax(0, 0.6fr)", phone: true, cell: ({ who }) => html`<span class="cut">${who}</span>` },
  { label: "What", width: "minmax(0, 2fr)", phone: true, cell: ({ action }) => html`<span class="strong cut" title=${action}>${action}</span>` },
  { label: "Of", width: "minmax(0, 2fr)", cell: ({ target }) => html`<${Target} of=${target} />` },
  { label: "How", width: "minmax(0, 2fr)", cell: ({ detail, problem }) => problem
    ? html`<${State} is="failed"><span class="cut" title=${problem}>${problem}</span><//>` : html`<span class="faint cut" title=${detail}>${detail}</span>` },
];

const PAGES = { ap: "apps", fu: "functions", fc: "calls", ta: "containers" };

/** What it was done to: a link where that has a page. */
function Target({ of }) {
  const [, kind] = /^([a-z]{2})-\w+$/.exec(of) ?? [];
  const words = html`<code class="cut" title=${of}>${of}</code>`;
  return PAGES[kind] ? html`<a class="cut" href=${`/${PAGES[kind]}/${of}`}>${words}</a>` : words;
}

export function Audit() {
  const [text, setText] = useState("");
  const { data, error, loading, refresh } = useQuery("audit", { parameters: { limit: 1000 }, every: 10 });
  const rows = (data?.entries ?? []).filter((entry) =>
    `${entry.who} ${entry.action} ${entry.target} ${entry.detail}`.toLowerCase().includes(text.trim().toLowerCase()));
  return html`
    <${Head} title="Changes"><p class="faint">What was changed from the dashboard, and by whom.</p><//>
    <div class="tools"><${Filter} value=${text} set=${setText} label="Filter changes" /></div>
    ${error && !data ? html`<${Problem} error=${error} retry=${refresh} />`
      : loading ? html`<${Loading} />`
      : rows.length ? html`<${Table} label="Changes" columns=${COLUMNS} rows=${rows} named=${({ at, target }) => `${at} ${target}`} />`
      : html`<${Empty} title=${text ? "No change fits." : "Nothing was changed from the dashboard yet."} />`}`;
}
