// One volume: its files, to look through and to download, and its versions.
import { url } from "../lib/api.js";
import { bytes, count, moment, plural } from "../lib/format.js";
import { html } from "../lib/html.js";
import { useQuery } from "../lib/query.js";
import { useLocation } from "../lib/router.js";
import { Ago, Empty, Facts, Head, Loading, Problem, Tabs } from "../parts/basics.js";
import { Table } from "../parts/table.js";

export function Volume({ id }) {
  const { query, set } = useLocation();
  const { data, error, loading, refresh } = useQuery(`volumes/${id}`, { every: 10 });
  const place = data?.volume.environment;
  const measured = useQuery(place ? "volumes" : null, { parameters: { details: true, environment: place, limit: 1000 }, every: 10 });
  const crumbs = [["Volumes", "/volumes"]];
  if (error && !data) return html`<${Head} title=${id} crumbs=${crumbs} /><${Problem} error=${error} retry=${refresh} />`;
  if (loading) return html`<${Head} title=" " crumbs=${crumbs} /><${Loading} />`;
  const volume = { ...data.volume, ...measured.data?.volumes.find(({ volume_id: one }) => one === id) };
  const known = (number, text) => (number >= 0 ? text(number) : "–");
  const { versions = [], snapshots = [] } = data.history ?? {};
  const tab = query.tab ?? "files";
  return html`
    <${Head} title=${volume.name || id} crumbs=${crumbs} id=${volume.volume_id}>
      <${Facts} facts=${[
        ["Environment", volume.environment], ["Size", known(volume.size, bytes) + (volume.limit ? ` of ${bytes(volume.limit)}` : "")],
        ["Files", known(volume.files, count)], ["Version", volume.version || ""], ["Committed", volume.committed_at > 0 ? html`<${Ago} at=${volume.committed_at} />` : "never"],
        ["Mounted by", volume.mounted?.join(", ")],
      ]} />
    <//>
    <${Tabs} chosen=${tab} choose=${(name) => set({ tab: name === "files" ? "" : name })} tabs=${[
      ["files", "Files"], ["history", "Versions", versions.length], snapshots.length > 0 && ["snapshots", "Snapshots", snapshots.length]]} />
    ${tab === "files" && html`<${Files} id=${id} name=${volume.name} path=${query.path ?? "/"} snapshot=${query.snapshot ?? ""} set=${set} />`}
    ${tab === "history" && html`<${Versions} versions=${versions} />`}
    ${tab === "snapshots" && html`<${Snapshots} snapshots=${snapshots} id=${id} />`}`;
}

function Files({ id, name, path, snapshot, set }) {
  const { data, error, loading, refresh } = useQuery(`volumes/${id}/files`, { parameters: { path, snapshot }, every: 10 });
  const steps = path.split("/").filter(Boolean);
  const href = (to) => `/volumes/${id}?${new URLSearchParams({ path: to, ...(snapshot && { snapshot }) })}`;
  const rows = [...(data?.files ?? [])].sort(foldersFirst);
  const last = (file) => file.path.split("/").filter(Boolean).pop() ?? file.path;
  const full = (file) => `/${[...steps, last(file)].join("/")}`;
  const columns = [
    { label: "Name", width: "minmax(0, 3fr)", phone: true, cell: (file) => file.kind === "directory"
      ? html`<a class="whole" href=${href(full(file))}>${last(file)}/</a>`
      : file.kind === "file" ? html`<a class="whole" download href=${url(`volumes/${id}/download`, { path: full(file), snapshot })}>${last(file)}</a>`
      : html`<span class="cut">${last(file)} <span class="faint">${file.kind}</span></span>` },
    { label: "Size", width: "100px", num: true, phone: true, cell: (file) => (file.kind === "file" ? bytes(file.size) : "–") },
    { label: "Changed", width: "130px", num: true, phone: true, cell: ({ mtime }) => moment(mtime) },
  ];
  return html`
    <nav class="path" aria-label="Folder"><a href=${href("/")}>${name || "volume"}</a>${steps.map((step, at) => html`
      <span aria-hidden="true">/</span><a key=${at} href=${href(`/${steps.slice(0, at + 1).join("/")}`)}>${step}</a>`)}
      ${snapshot && html`<span class="faint">as of snapshot ${snapshot}</span><button type="button" class="quiet" onClick=${() => set({ snapshot: "" })}>as it is now</button>`}</nav>
    ${error && !data ? html`<${Problem} error=${error} retry=${refresh} />`
      : loading ? html`<${Loading} />`
      : rows.length ? html`<${Table} label="Files" columns=${columns} rows=${rows} named=${(file) => file.path} height=${36} />`
      : html`<${Empty} title="This folder is empty." command=${`alight volume put ${name} local-file /`} />`}`;
}

const foldersFirst = (one, other) =>
  (other.kind === "directory") - (one.kind === "directory") || one.path.localeCompare(other.path, "en", { numeric: true });

const VERSIONS = [
  { label: "Version", width: "84px", num: true, phone: true, cell: ({ version }) => version },
  { label: "How", width: "110px", phone: true, cell: ({ kind }) => kind },
  { label: "When", width: "92px", num: true, phone: true, cell: ({ at }) => html`<${Ago} at=${at} />` },
  { label: "Files", width: "92px", num: true, cell: ({ files }) => count(files) },
  { label: "Size", width: "92px", num: true, cell: ({ size }) => bytes(size) },
  { label: "By", width: "minmax(0, 1fr)", cell: (line) => html`<span class="cut">${line.function || line.by || "–"} ${line.container && html`<a href=${`/containers/${line.container}`}><code>${line.container}</code></a>`}</span>` },
];

const Versions = ({ versions }) => versions.length
  ? html`<${Table} label="Versions" columns=${VERSIONS} rows=${versions} named=${({ version, at }) => `${version} ${at}`} />`
  : html`<${Empty} title="Nothing was committed to it yet." />`;

const Snapshots = ({ snapshots, id }) => html`<${Table} label="Snapshots" rows=${snapshots} named=${({ name }) => name} columns=${[
  { label: "Snapshot", width: "minmax(0, 2fr)", phone: true, cell: ({ name, label }) => html`<a class="cut" href=${`/volumes/${id}?${new URLSearchParams({ snapshot: name })}`}>${label || name}</a>` },
  { label: "Made", width: "92px", num: true, phone: true, cell: ({ at }) => html`<${Ago} at=${at} />` },
  { label: "Files", width: "110px", num: true, cell: ({ files }) => plural(files, "file") },
  { label: "Size", width: "92px", num: true, cell: ({ size }) => bytes(size) },
]} />`;
