// Budgets: what an app, a user or a run may cost, what of it is used, and the questions that set one and take it away.
import { cashOf, duration } from "../lib/format.js";
import { html } from "../lib/html.js";
import { useQuery } from "../lib/query.js";
import { Bar, Empty, Problem, Section, State } from "./basics.js";
import { Action } from "./dialog.js";
import { Table } from "./table.js";

/** Those that concern who looks, and a way to ask again. */
export const useBudgets = () => useQuery("cost/budgets", { every: 10 });

/** "$0.34 of $0.50" */
export function words({ cost, gpu_seconds: seconds, spent, spent_gpu_seconds: used }, currency) {
  const cash = cashOf(currency);
  const parts = [cost != null && `${cash(spent)} of ${cash(cost)}`, seconds != null && `GPUs for ${duration(used)} of ${duration(seconds)}`];
  return parts.filter(Boolean).join(", ");
}

/** Of which time it is. */
export const time = ({ kind }) => (kind === "run" ? "in its life" : "this month");

/** How much of it is used, 1 for all: of the limit that is nearer. */
export const share = ({ cost, gpu_seconds: seconds, spent, spent_gpu_seconds: used }) =>
  Math.min(1, Math.max(cost == null ? 0 : cost ? spent / cost : 1, seconds == null ? 0 : seconds ? used / seconds : 1));

const empty = (limit) => (limit == null ? "no limit" : "as it is now");

/**
 * Sets a budget: of what `body` names, or of one of `apps`. `of` is the one that there is.
 */
export function SetBudget({ body = {}, of, apps, label = "Set a budget", title = label, currency = "USD", then, quiet }) {
  const fields = [
    ...(apps ? [{ name: "name", label: "App", options: apps, value: apps[0]?.[0] }] : []),
    { name: "cost", label: `Money, ${currency}`, hint: `${of?.kind === "run" ? "over its life" : "a month"}; empty: ${empty(of?.cost)}`, value: of?.cost, step: "any" },
    { name: "gpu_seconds", label: "GPU seconds", hint: `of all types together; empty: ${empty(of?.gpu_seconds)}`, value: of?.gpu_seconds, step: "any" },
    { name: "stop", label: "What runs is stopped, too", kind: "check", value: of?.stop ?? false },
  ];
  return html`<${Action} label=${label} verb="Set" title=${title} path="cost/budgets" body=${body} fields=${fields} all quiet=${quiet} then=${then}
    text="When it is used up, new inputs wait and say so. What runs finishes, unless it is to be stopped." />`;
}

/** What a request names it by. */
const named = ({ kind, name, environment }) => ({ kind, name, environment });

const columns = (currency, refresh) => [
  { label: "Of", width: "minmax(0, 1fr)", phone: true, cell: ({ kind, name, environment, app_id: id }) => html`<span class="cut">
    <span class="faint">${kind} </span>${id ? html`<a class="strong" href=${`/apps/${id}`}>${name}</a>` : html`<span class="strong">${name}</span>`}
    ${environment && environment !== "main" && html` <span class="faint">in ${environment}</span>`}</span>` },
  { label: "Used", width: "minmax(0, 1.6fr)", phone: true, cell: (one) => html`<span class=${`cut num ${one.used_up ? "bad" : ""}`} title=${`${words(one, currency)} ${time(one)}`}>${words(one, currency)}</span>` },
  { label: "", width: "minmax(60px, 0.8fr)", cell: (one) => html`<span class="inputs"><${Bar} label=${`${Math.round(share(one) * 100)} % used`} parts=${[
    { name: "used", value: share(one), tone: one.used_up ? "bad" : share(one) > 0.8 ? "wait" : "live" }, { name: "left", value: 1 - share(one), tone: "rest" }]} /></span>` },
  { label: "Counted", width: "90px", cell: (one) => html`<span class="faint">${time(one)}</span>` },
  { label: "State", width: "minmax(150px, 0.9fr)", cell: ({ used_up: up, stop }) => up
    ? html`<${State} is="held" tone="bad">${stop ? "used up: stopped" : "used up: inputs wait"}<//>`
    : html`<span class="faint cut">${stop ? "then stops what runs" : "then inputs wait"}</span>` },
  { label: "Set by", width: "80px", cell: ({ set_by: who }) => html`<span class="cut">${who}</span>` },
  { label: " ", width: "126px", num: true, phone: true, cell: (one) => html`<span class="actions">
    <${SetBudget} quiet label="Change" title=${`Change the budget of ${one.name}`} of=${one} body=${named(one)} currency=${currency} then=${refresh} />
    <${Action} quiet label="Clear" verb="Clear it" danger title=${`Take away the budget of ${one.name}?`} path="cost/budgets/clear" body=${named(one)} then=${refresh}
      text="What waits because of it goes on." /></span>` },
];

/** All of them, with what they hold back. */
export function Budgets({ of: { data, error, refresh } }) {
  const { data: known } = useQuery("apps", { parameters: { limit: 1000 }, topics: ["apps"] });
  const living = (known?.apps ?? []).filter(({ state, name, description }) => state !== "stopped" && (name || description));
  const ids = new Map(living.flatMap((app) => [[`${app.environment} ${app.name || app.description}`, app.app_id], [app.app_id, app.app_id]]));
  const rows = (data?.budgets ?? []).map((one) => ({ ...one, app_id: one.kind === "user" ? "" : ids.get(one.kind === "run" ? one.name : `${one.environment} ${one.name}`) }));
  const apps = living.map((app) => [app.app_id, `${app.name || app.description}${app.environment === "main" ? "" : ` in ${app.environment}`}`]);
  return html`<${Section} title="Budgets" aside=${apps.length > 0 && html`<${SetBudget} apps=${apps} currency=${data?.currency} then=${refresh} />`}>
    ${error && !data ? html`<${Problem} error=${error} retry=${refresh} />`
      : rows.length ? html`<${Table} label="Budgets" columns=${columns(data.currency, refresh)} rows=${rows} named=${({ kind, name, environment }) => `${kind} ${name} ${environment}`} />`
      : data && html`<${Empty} title="There are no budgets." command="alight app budget APP --month 100" />`}
  <//>`;
}
