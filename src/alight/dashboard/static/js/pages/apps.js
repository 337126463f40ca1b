// All apps, and how the whole system does.
import { count, plural } from "../lib/format.js";
import { html, useState } from "../lib/html.js";
import { useQuery } from "../lib/query.js";
import { useLocation } from "../lib/router.js";
import { Ago, Choice, Empty, Filter, Head, Loading, Problem, State, Tile, Tiles } from "../parts/basics.js";
import { RowLink, Table } from "../parts/table.js";

export function Apps() {
  const { query, set } = useLocation();
  const [text, setText] = useState("");
  const overview = useQuery("overview", { topics: ["apps", "containers", "calls", "nodes"] });
  const { data, error, loading, refresh } = useQuery("apps", { parameters: { limit: 1000 }, topics: ["apps"] });
  const environments = [...new Set((data?.apps ?? []).map(({ environment }) => environment))];
  const which = query.show ?? "living";
  const rows = (data?.apps ?? []).filter((app) => fits(app, text, which, query.environment));
  return html`
    <${Head} title="Apps" />
    <${Overview} data=${overview.data} />
    <div class="tools"><${Filter} value=${text} set=${setText} label="Filter apps" />
      <${Choice} label="Which apps" value=${which} set=${(value) => set({ show: value === "living" ? "" : value })}
        options=${[["living", "Living"], ["all", "All"]]} />
      ${environments.length > 1 && html`<${Choice} label="Environment" value=${query.environment ?? ""}
        set=${(value) => set({ environment: value })} options=${[["", "Every environment"], ...environments.map((name) => [name, name])]} />`}
    </div>
    ${error && !data ? html`<${Problem} error=${error} retry=${refresh} />`
      : loading ? html`<${Loading} />`
      : rows.length ? html`<${Table} label="Apps" columns=${COLUMNS} rows=${rows} named=${({ app_id: id }) => id} />`
      : html`<${Nothing} any=${data.apps.length > 0} filtered=${Boolean(text)} showAll=${() => set({ show: "all" })} />`}`;
}

const Nothing = ({ any, filtered, showAll }) => filtered
  ? html`<${Empty} title="No app fits." />`
  : html`<${Empty} title=${any ? "No app is running." : "There are no apps yet."} command="alight run hello.py">
      ${any ? html`<button type="button" class="quiet" onClick=${showAll}>Show those that have stopped</button>` : "Run a file with an App in it, or deploy one:"}<//>`;

const fits = (app, text, which, environment) =>
  (which === "all" || app.state !== "stopped") && (!environment || app.environment === environment) &&
  `${app.name} ${app.description} ${app.app_id}`.toLowerCase().includes(text.trim().toLowerCase());

const COLUMNS = [
  { label: "App", width: "minmax(0, 2fr)", phone: true,
    cell: (app) => html`<${RowLink} href=${`/apps/${app.app_id}`}>${app.name || app.description || app.app_id}<//>` },
  { label: "State", width: "120px", phone: true, cell: (app) => html`<${State} is=${app.state} />` },
  { label: "Functions", width: "minmax(0, 2fr)", cell: (app) => html`<span class="faint cut" title=${app.functions.join(", ")}>${app.functions.join(", ") || "–"}</span>` },
  { label: "Containers", width: "92px", num: true, cell: (app) => count(app.containers) },
  { label: "Version", width: "76px", num: true, cell: (app) => (app.version ? `v${app.version}` : "–") },
  { label: "Environment", width: "120px", cell: (app) => app.environment },
  { label: "Begun", width: "92px", num: true, phone: true, cell: (app) => html`<${Ago} at=${app.deployed_at || app.created_at} />` },
];

function Overview({ data }) {
  const { apps = {}, containers = {}, nodes = [] } = data ?? {};
  const value = (number) => (data ? count(number ?? 0) : "–");
  return html`<${Tiles}>
    <${Tile} label="Apps" value=${value((apps.running ?? 0) + (apps.deployed ?? 0))} of=${data ? `${count(apps.deployed ?? 0)} deployed` : ""} />
    <${Tile} label="Containers" value=${value(containers.ready)} of=${data ? `${count(containers.starting ?? 0)} starting` : ""} />
    <${Tile} label="Inputs running" value=${value(data?.running)} />
    <${Tile} label="Inputs waiting" value=${value(data?.waiting)} tone=${data?.waiting ? "wait" : ""} />
    <${Tile} label="Machines" value=${value(nodes.length)} of=${data ? plural(nodes.reduce((sum, { gpus }) => sum + gpus.length, 0), "GPU") : ""} />
  <//>`;
}
