// One app: its functions, calls, containers, log, schedules and versions.
import { cashOf, count, duration, plural } from "../lib/format.js";
import { html } from "../lib/html.js";
import { useQuery } from "../lib/query.js";
import { useLocation } from "../lib/router.js";
import { Ago, Empty, Facts, Head, Loading, Problem, Section, State, Tabs } from "../parts/basics.js";
import { SetBudget, time, useBudgets, words } from "../parts/budgets.js";
import { Action } from "../parts/dialog.js";
import { CallList, ContainerList } from "../parts/lists.js";
import { Log } from "../parts/log.js";
import { Stages } from "../parts/starts.js";
import { RowLink, Table } from "../parts/table.js";
import { ScheduleTable } from "./schedules.js";

export function App({ id }) {
  const { query, set } = useLocation();
  const { data, error, loading, refresh } = useQuery(`apps/${id}`, { topics: ["apps", `app:${id}`, "schedules"] });
  const budgets = useBudgets();
  if (error && !data) return html`<${Head} title=${id} crumbs=${[["Apps", "/"]]} /><${Problem} error=${error} retry=${refresh} />`;
  if (loading || budgets.loading) return html`<${Head} title=" " crumbs=${[["Apps", "/"]]} /><${Loading} />`;
  const { app, schedules = [], versions } = data;
  const tab = query.tab ?? "functions";
  const lives = app.state !== "stopped";
  const budget = (budgets.data?.budgets ?? []).find((one) => isOf(one, app));
  const currency = budgets.data?.currency;
  return html`
    <${Head} title=${app.name || app.description || id} crumbs=${[["Apps", "/"]]} id=${app.app_id} state=${html`<${State} is=${app.state} />`}
      actions=${lives && html`<${SetBudget} label="Budget" title=${`Set the budget of ${app.name || "this run"}`} of=${budget ?? { kind: kindOf(app) }}
          body=${{ kind: kindOf(app), name: app.app_id }} currency=${currency} then=${budgets.refresh} />
        <${Action} label="Stop" danger title=${`Stop ${app.name || "this app"}?`} path=${`apps/${app.app_id}/stop`} then=${refresh}
        text="What waits and runs is cancelled, and its containers end. A deployed app has to be deployed again to come back." />`}>
      <${About} app=${app} budget=${budget} currency=${currency} />
    <//>
    <${Tabs} chosen=${tab} choose=${(name) => set({ tab: name === "functions" ? "" : name })} tabs=${[
      ["functions", "Functions", app.functions.length], ["calls", "Calls"], ["containers", "Containers"], ["logs", "Log"],
      ["starts", "Cold starts"], schedules.length > 0 && ["schedules", "Schedules", schedules.length],
      versions?.versions.length > 0 && ["versions", "Versions", versions.versions.length],
    ]} />
    ${tab === "functions" && html`<${Functions} functions=${app.functions} />`}
    ${tab === "calls" && html`<${CallList} path="calls" parameters=${{ app: app.app_id }} topics=${["calls"]} />`}
    ${tab === "containers" && html`<${ContainerList} parameters=${{ app: app.app_id, all: true }} />`}
    ${tab === "logs" && html`<${Log} of=${{ app: app.app_id }} many />`}
    ${tab === "starts" && html`<${Starts} id=${app.app_id} />`}
    ${tab === "schedules" && html`<${ScheduleTable} one schedules=${schedules} refresh=${refresh} />`}
    ${tab === "versions" && versions && html`<${Versions} app=${app} versions=${versions} refresh=${refresh} />`}`;
}

const kindOf = (app) => (app.state === "deployed" ? "app" : "run");

const isOf = ({ kind, name, environment }, app) =>
  kind === "run" ? name === app.app_id : kind === "app" && name === (app.name || app.description) && environment === app.environment;

function About({ app, budget, currency }) {
  const { data: cost } = useQuery(`apps/${app.app_id}/cost`, { every: 30 });
  const urls = app.functions.flatMap(({ web = [] }) => web);
  const tags = Object.entries(app.tags ?? {});
  return html`<${Facts} facts=${[
    ["Environment", app.environment],
    ["Version", app.version ? `v${app.version}` : ""],
    [app.deployed_at ? "Deployed" : "Begun", html`<${Ago} at=${app.deployed_at || app.created_at} />${(app.deployed_by || app.created_by) && ` by ${app.deployed_by || app.created_by}`}`],
    ["Stopped", app.stopped_at && html`<${Ago} at=${app.stopped_at} />${app.stop_reason && `: ${app.stop_reason}`}`],
    ["Tags", tags.length > 0 && tags.map(([name, value]) => `${name}=${value}`).join(", ")],
    ["Cost", cost ? (cost.cost > 0 ? cashOf(cost.currency)(cost.cost) : "none yet") : "–"],
    ["Budget", budget && html`${words(budget, currency)} ${time(budget)}${budget.used_up ? html` <${State} is="held" tone="bad">used up<//>` : ""}`],
    ["Answers at", urls.length > 0 && html`<${Urls} urls=${urls} />`],
  ]} />`;
}

/** Where web functions answer, as links of a new tab. */
export const Urls = ({ urls }) => html`<span class="urls">${urls.map(({ url, method, note, requires_proxy_auth: guarded }) => html`
  <span key=${url}>${/^https?:/.test(url) ? html`<a href=${url} target="_blank" rel="noreferrer noopener">${url}</a>` : url}${method && html`<span class="faint"> ${method}</span>`}
  ${guarded && html`<span class="faint"> needs a token</span>`}${note && html`<span class="faint"> ${note}</span>`}</span>`)}</span>`;

const FUNCTIONS = [
  { label: "Function", width: "minmax(0, 2fr)", phone: true,
    cell: (one) => html`<${RowLink} href=${`/functions/${one.function_id}`}>${one.name}<//>` },
  { label: "Kind", width: "minmax(0, 1fr)", phone: true,
    cell: (one) => html`<span class="faint cut">${kind(one)}</span>` },
  { label: "Containers", width: "92px", num: true, phone: true, cell: (one) => count(one.containers) },
];

const kind = ({ is_web: web, methods, schedule }) =>
  [web && "web", methods?.length && plural(methods.length, "method"), Object.keys(schedule ?? {}).length && "scheduled"].filter(Boolean).join(", ") || "function";

const Functions = ({ functions }) => functions.length
  ? html`<${Table} label="Functions" columns=${FUNCTIONS} rows=${functions} named=${({ function_id: id }) => id} />`
  : html`<${Empty} title="This app has no functions." />`;

function Starts({ id }) {
  const { data, error, loading, refresh } = useQuery(`apps/${id}/stats`, { topics: ["containers"] });
  if (error && !data) return html`<${Problem} error=${error} retry=${refresh} />`;
  if (loading) return html`<${Loading} />`;
  const known = data.functions.filter(({ starts }) => starts > 0);
  if (!known.length) return html`<${Empty} title="No container of this app has started yet." />`;
  return known.map((one) => html`<${Section} key=${one.function_id} title=${one.function}
    aside=${html`<span class="faint num">${plural(one.starts, "start")}${one.failed ? `, ${one.failed} failed` : ""}; slowest <a href=${`/containers/${one.slowest_id}`}>${duration(one.slowest)}</a></span>`}>
    <${Stages} stages=${one.stages} remedies=${one.remedies} /><//>`);
}

function Versions({ app, versions, refresh }) {
  const columns = [
    { label: "Version", width: "56px", phone: true, num: true, cell: ({ version }) => html`<span class="strong">v${version}</span>` },
    { label: "", width: "100px", phone: true, cell: ({ version, failed, kept }) => version === versions.current
      ? html`<${State} is="serves" tone="good" />` : failed ? html`<${State} is="failed"><span title=${failed}>taken back</span><//>` : kept ? "" : html`<span class="faint">not kept</span>` },
    { label: "Deployed", width: "84px", num: true, phone: true, cell: ({ deployed_at: at }) => html`<${Ago} at=${at} />` },
    { label: "By", width: "110px", cell: ({ deployed_by: who }) => who || "–" },
    { label: "Commit", width: "minmax(0, 1fr)", cell: ({ commit, dirty, tag, origin }) => html`<span class="cut">
      ${commit && html`<code>${commit.slice(0, 10)}${dirty ? "+" : ""}</code>`} ${tag} ${origin ? html`<span class="faint">as v${origin}</span>` : ""}</span>` },
    { label: " ", width: "84px", num: true, phone: true, cell: ({ version, kept }) => version !== versions.current && kept && app.state !== "stopped" && html`
      <${Action} quiet label="Go back" title=${`Go back to version ${version}?`} path=${`apps/${app.app_id}/rollback`} body=${{ version }} then=${refresh}
        text="It serves again under a new number. Containers of the version that serves now finish what they have begun." />` },
  ];
  return html`<${Table} label="Versions" columns=${columns} rows=${versions.versions} named=${({ version }) => version} />`;
}
