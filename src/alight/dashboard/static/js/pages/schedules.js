// Functions that run by themselves: when next, what became of the last run.
import { scheduled } from "../lib/format.js";
import { html, useState } from "../lib/html.js";
import { useQuery } from "../lib/query.js";
import { Ago, Empty, Filter, Head, Loading, Problem, State } from "../parts/basics.js";
import { Action } from "../parts/dialog.js";
import { go } from "../lib/router.js";
import { Table } from "../parts/table.js";

const columns = (refresh, one) => [
  { label: "Function", width: "minmax(0, 2fr)", phone: true,
    cell: (line) => html`<a class="cut" href=${`/functions/${line.function_id}`}>${!one && html`<span class="faint">${line.app}.</span>`}${line.function}</a>` },
  { label: "Schedule", width: "minmax(0, 1fr)", cell: ({ schedule }) => html`<code class="cut" title=${scheduled(schedule)}>${scheduled(schedule)}</code>` },
  { label: "Next", width: "92px", num: true, phone: true,
    cell: (line) => (line.paused ? html`<${State} is="paused" />` : line.next_at ? html`<${Ago} at=${line.next_at} />` : "never") },
  { label: "Last run", width: "minmax(0, 1fr)", cell: (line) => line.last_call
    ? html`<a href=${`/calls/${line.last_call}`} title=${line.last_error}><${State} is=${line.last_status || "unknown"} /></a>` : html`<span class="faint">none yet</span>` },
  { label: "", width: "150px", num: true, phone: true, cell: (line) => html`<${Actions} line=${line} refresh=${refresh} />` },
];

function Actions({ line, refresh }) {
  const body = { app: line.app_id, function: line.function, environment: line.environment };
  const verb = line.paused ? "resume" : "pause";
  return html`<span class="actions">
    <${Action} quiet label="Run now" title=${`Run ${line.function} now?`} text="One run more, beside those that come." path="schedules/run"
      body=${body} then=${({ call_id: call }) => call && go(`/calls/${call}`)} />
    <${Action} quiet label=${line.paused ? "Resume" : "Pause"} path=${`schedules/${verb}`} body=${body} then=${refresh}
      title=${line.paused ? `Resume ${line.function}?` : `Pause ${line.function}?`}
      text=${line.paused ? "Runs that were due meanwhile are not made up." : "It does not run by itself until it is resumed."} /></span>`;
}

export function ScheduleTable({ schedules, refresh, one = false }) {
  return html`<${Table} label="Schedules" columns=${columns(refresh, one)} rows=${schedules} named=${({ function_id: id }) => id} />`;
}

export function Schedules() {
  const [text, setText] = useState("");
  const { data, error, loading, refresh } = useQuery("schedules", { topics: ["schedules"], every: 30 });
  const rows = (data?.schedules ?? []).filter(({ app, function: name }) => `${app}.${name}`.toLowerCase().includes(text.trim().toLowerCase()));
  return html`
    <${Head} title="Schedules" />
    <div class="tools"><${Filter} value=${text} set=${setText} label="Filter schedules" /></div>
    ${error && !data ? html`<${Problem} error=${error} retry=${refresh} />`
      : loading ? html`<${Loading} />`
      : rows.length ? html`<${ScheduleTable} schedules=${rows} refresh=${refresh} />`
      : html`<${Empty} title=${text ? "No schedule fits." : "No deployed function runs by itself."} command=${!text && "alight deploy nightly.py"}>
          ${!text && "Give a function a schedule and deploy it: @app.function(schedule=alight.Cron(\"0 3 * * *\"))"}<//>`}`;
}
