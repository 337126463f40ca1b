// What was used and what that costs: by day, by function, idle time apart.
import { now } from "../lib/api.js";
import { cashOf, duration } from "../lib/format.js";
import { html, useState } from "../lib/html.js";
import { useQuery } from "../lib/query.js";
import { useLocation } from "../lib/router.js";
import { Choice, Empty, Filter, Head, Loading, Problem, Section, Tile, Tiles } from "../parts/basics.js";
import { Budgets, useBudgets } from "../parts/budgets.js";
import { Chart } from "../parts/chart.js";
import { Table } from "../parts/table.js";

const SPANS = { "1d": [86_400, "h"], "7d": [604_800, "d"], "30d": [2_592_000, "d"], "90d": [7_776_000, "d"] };

export function Cost() {
  const { query, set } = useLocation();
  const [text, setText] = useState("");
  const span = SPANS[query.span] ? query.span : "7d";
  const [seconds, resolution] = SPANS[span];
  const { data, error, loading, refresh } = useQuery("cost", { parameters: { resolution, by: "function" }, last: seconds, from: "start", every: 30 });
  const budgets = useBudgets();
  const cash = cashOf(data?.currency);
  const items = data?.items ?? [];
  const rows = gathered(items).filter(({ app, name }) => `${app}.${name}`.toLowerCase().includes(text.trim().toLowerCase()));
  const sum = (field) => items.reduce((total, item) => total + (item[field] ?? 0), 0);
  return html`
    <${Head} title="Cost" />
    <div class="tools"><${Filter} value=${text} set=${setText} label="Filter" />
      <${Choice} label="How far back" value=${span} set=${(value) => set({ span: value === "7d" ? "" : value })} options=${Object.keys(SPANS).map((name) => [name, name])} /></div>
    ${error && !data ? html`<${Problem} error=${error} retry=${refresh} />` : loading || budgets.loading ? html`<${Loading} />` : !items.length
      ? html`<${Empty} title="Nothing was used in this time." command="alight billing rates">Prices are settings; what is used is counted by the second.<//><${Budgets} of=${budgets} />`
      : html`
        <${Tiles}>
          <${Tile} label="Cost" value=${cash(sum("cost"))} of=${`last ${span}`} />
          <${Tile} label="Of it idle" value=${cash(sum("idle"))} of="containers that waited for inputs" />
          <${Tile} label="Of it starting" value=${cash(sum("starting"))} />
        <//>
        <${Days} items=${items} cash=${cash} seconds=${seconds} step=${resolution === "h" ? 3600 : 86_400} />
        <${Budgets} of=${budgets} />
        <${Section} title="By what it was for"><${Table} label="Cost" columns=${columns(cash)} rows=${rows} named=${({ key }) => key} /><//>`}`;
}

function Days({ items, cash, seconds, step }) {
  const days = new Map();
  for (let day = Math.floor((now() - seconds) / step) * step; day <= now(); day += step) days.set(day, { cost: 0, idle: 0 });
  for (const item of items) {
    const day = days.get(item.at) ?? { cost: 0, idle: 0 };
    days.set(item.at, { cost: day.cost + (item.cost ?? 0), idle: day.idle + (item.idle ?? 0) });
  }
  const at = [...days.keys()].sort((one, other) => one - other);
  const values = (field) => at.map((day) => days.get(day)[field]);
  return html`<div class="charts one"><${Chart} title=${step === 3600 ? "By hour" : "By day"} at=${at} format=${cash} bars=${step}
    series=${[{ label: "all", values: values("cost"), tone: "live", fill: true }, { label: "idle", values: values("idle"), tone: "wait" }]} /></div>`;
}

/** What a row is of: a function of an app, or files, which are of no function. */
const named = ({ description, object_id: id, function: name }) =>
  name ? { app: description, name } : { app: "", name: id ? description : "files in volumes" };

function gathered(items) {
  const found = new Map();
  for (const item of items) {
    const key = `${item.object_id} ${item.function} ${item.environment}`;
    const line = found.get(key) ?? { key, id: item.object_id, ...named(item), cost: 0, idle: 0, starting: 0, amounts: {} };
    for (const field of ["cost", "idle", "starting"]) line[field] += item[field] ?? 0;
    for (const [resource, amount] of Object.entries(item.amounts ?? {})) line.amounts[resource] = (line.amounts[resource] ?? 0) + amount;
    found.set(key, line);
  }
  return [...found.values()].sort((one, other) => other.cost - one.cost);
}

const columns = (cash) => [
  { label: "For", width: "minmax(0, 2fr)", phone: true,
    cell: ({ id, app, name }) => html`<a class="cut" href=${id ? `/${id.startsWith("fu-") ? "functions" : "apps"}/${id}` : "/volumes"}>
      ${app && html`<span class="faint">${app}.</span>`}${name}</a>` },
  { label: "Used", width: "minmax(0, 2fr)", cell: ({ amounts }) => html`<span class="faint cut" title=${words(amounts)}>${words(amounts)}</span>` },
  { label: "Idle", width: "100px", num: true, cell: ({ idle }) => cash(idle) },
  { label: "Starting", width: "100px", num: true, cell: ({ starting }) => cash(starting) },
  { label: "Cost", width: "100px", num: true, phone: true, cell: ({ cost }) => html`<span class="strong">${cash(cost)}</span>` },
];

const hours = (unit) => (amount) => `${(amount / 3600).toPrecision(2)} ${unit} hours`;
const AMOUNTS = {
  container: (amount) => `containers for ${duration(amount)}`, cpu: hours("core"), memory: hours("GiB"),
  energy: (amount) => `${(amount / 3.6e6).toPrecision(2)} kWh`, storage: (amount) => `${amount.toPrecision(2)} GiB hours stored`,
};

/** "containers for 3 min 5 s, 0.05 core hours, A100 for 41 s" */
const words = (amounts) => Object.entries(amounts).filter(([name, amount]) => amount > 0 && (AMOUNTS[name] || name.startsWith("gpu:")))
  .map(([name, amount]) => AMOUNTS[name]?.(amount) ?? `${name.slice(4)} for ${duration(amount)}`).join(", ");
