// The images that were built here, and what they take on the disk.
import { bytes, count, plural } from "../lib/format.js";
import { html, useState } from "../lib/html.js";
import { useQuery } from "../lib/query.js";
import { Ago, Empty, Filter, Head, Id, Loading, Problem, State } from "../parts/basics.js";
import { Table } from "../parts/table.js";

const columns = (names) => [
  { label: "Image", width: "minmax(0, 2fr)", phone: true,
    cell: (image) => html`<span class="strong cut">${called(image, names) || image.title || "–"}</span>` },
  { label: "Id", width: "140px", cell: ({ ids, digest }) => html`<${Id} id=${ids[0] ?? digest} />` },
  { label: "State", width: "100px", phone: true, cell: (image) => html`<${State} is=${image.in_use ? "in use" : "unused"} tone=${image.in_use ? "good" : "calm"} />` },
  { label: "Layers", width: "72px", num: true, cell: ({ layers }) => count(layers.length) },
  { label: "Size", width: "92px", num: true, phone: true, cell: (image) => bytes(image.bytes) },
  { label: "Its own", width: "92px", num: true, cell: (image) => bytes(image.own_bytes) },
  { label: "Built", width: "84px", num: true, cell: (image) => html`<${Ago} at=${image.made_at} />` },
  { label: "Last used", width: "84px", num: true, cell: (image) => html`<${Ago} at=${image.used_at} />` },
];

const called = ({ ids }, names) => ids.flatMap((id) => names.get(id) ?? []).join(", ");

export function Images() {
  const [text, setText] = useState("");
  const { data, error, loading, refresh } = useQuery("images", { every: 30 });
  const names = new Map();
  for (const { image_id: id, environment, name, tag } of data?.names ?? []) {
    names.set(id, [...(names.get(id) ?? []), `${environment ? `${environment}/` : ""}${name}:${tag}`]);
  }
  const all = data?.images ?? [];
  const rows = all.filter((image) =>
    `${image.digest} ${image.ids.join(" ")} ${image.title} ${called(image, names)}`.toLowerCase().includes(text.trim().toLowerCase()));
  const own = all.reduce((sum, image) => sum + image.own_bytes, 0);
  return html`
    <${Head} title="Images"><p class="faint">${all.length ? `${plural(all.length, "image")}; layers that no other image shares take ${bytes(own)}. “alight image prune” frees what is unused.` : ""}</p><//>
    <div class="tools"><${Filter} value=${text} set=${setText} label="Filter images" /></div>
    ${error && !data ? html`<${Problem} error=${error} retry=${refresh} />`
      : loading ? html`<${Loading} />`
      : rows.length ? html`<${Table} label="Images" columns=${columns(names)} rows=${rows} named=${({ digest, node }) => `${digest} ${node}`} />`
      : html`<${Empty} title=${text ? "No image fits." : "No image was built yet."} command=${!text && "alight run hello.py"} />`}`;
}
