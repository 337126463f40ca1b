// The names of secrets and of what is in them. Values never leave the server.
import { html, useState } from "../lib/html.js";
import { useQuery } from "../lib/query.js";
import { Ago, Empty, Filter, Head, Loading, Problem } from "../parts/basics.js";
import { Table } from "../parts/table.js";

const COLUMNS = [
  { label: "Secret", width: "minmax(0, 1fr)", phone: true, cell: ({ name }) => html`<span class="strong cut">${name || "(anonymous)"}</span>` },
  { label: "Keys", width: "minmax(0, 2fr)", phone: true, cell: ({ keys }) => html`<code class="cut" title=${keys.join(", ")}>${keys.join(", ") || "–"}</code>` },
  { label: "Environment", width: "120px", cell: ({ environment }) => environment },
  { label: "Made by", width: "110px", cell: ({ created_by: who }) => who || "–" },
  { label: "Made", width: "92px", num: true, cell: ({ created_at: at }) => html`<${Ago} at=${at} />` },
  { label: "Last used", width: "92px", num: true, phone: true, cell: ({ last_used_at: at }) => (at ? html`<${Ago} at=${at} />` : "never") },
];

export function Secrets() {
  const [text, setText] = useState("");
  const { data, error, loading, refresh } = useQuery("secrets", { every: 30 });
  const rows = (data?.secrets ?? []).filter(({ name, keys }) => `${name} ${keys.join(" ")}`.toLowerCase().includes(text.trim().toLowerCase()));
  return html`
    <${Head} title="Secrets"><p class="faint">Names only: no page and no command shows a value.</p><//>
    <div class="tools"><${Filter} value=${text} set=${setText} label="Filter secrets" /></div>
    ${error && !data ? html`<${Problem} error=${error} retry=${refresh} />`
      : loading ? html`<${Loading} />`
      : rows.length ? html`<${Table} label="Secrets" columns=${COLUMNS} rows=${rows} named=${({ secret_id: id }) => id} />`
      : html`<${Empty} title=${text ? "No secret fits." : "There are no secrets yet."} command=${!text && "alight secret create my-secret KEY=value"} />`}`;
}
