// All volumes: how large, who has them mounted.
import { bytes, count } from "../lib/format.js";
import { html, useState } from "../lib/html.js";
import { useQuery } from "../lib/query.js";
import { Ago, Empty, Filter, Head, Loading, Problem } from "../parts/basics.js";
import { RowLink, Table } from "../parts/table.js";

const COLUMNS = [
  { label: "Volume", width: "minmax(0, 2fr)", phone: true,
    cell: (volume) => html`<${RowLink} href=${`/volumes/${volume.volume_id}`}>${volume.name || volume.volume_id}<//>` },
  { label: "Environment", width: "120px", cell: ({ environment }) => environment },
  { label: "Size", width: "92px", num: true, phone: true, cell: ({ size }) => bytes(size) },
  { label: "Limit", width: "92px", num: true, cell: ({ limit }) => (limit ? bytes(limit) : "–") },
  { label: "Files", width: "92px", num: true, cell: ({ files }) => (files < 0 ? "–" : count(files)) },
  { label: "Mounted by", width: "minmax(0, 2fr)", cell: ({ mounted }) => html`<span class="faint cut" title=${mounted.join(", ")}>${mounted.join(", ") || "–"}</span>` },
  { label: "Committed", width: "92px", num: true, phone: true, cell: ({ committed_at: at }) => (at ? html`<${Ago} at=${at} />` : "never") },
];

export function Volumes() {
  const [text, setText] = useState("");
  const { data, error, loading, refresh } = useQuery("volumes", { parameters: { details: true, limit: 1000 }, topics: ["volumes"], every: 10 });
  const rows = (data?.volumes ?? []).filter(({ name, volume_id: id }) => `${name} ${id}`.toLowerCase().includes(text.trim().toLowerCase()));
  return html`
    <${Head} title="Volumes" />
    <div class="tools"><${Filter} value=${text} set=${setText} label="Filter volumes" /></div>
    ${error && !data ? html`<${Problem} error=${error} retry=${refresh} />`
      : loading ? html`<${Loading} />`
      : rows.length ? html`<${Table} label="Volumes" columns=${COLUMNS} rows=${rows} named=${({ volume_id: id }) => id} />`
      : html`<${Empty} title=${text ? "No volume fits." : "There are no volumes yet."} command=${!text && "alight volume create my-data"} />`}`;
}
