// One function: how it does now and did before, its calls, what it was declared to be.
import { bytes, count, duration, mebibytes, plural, scheduled } from "../lib/format.js";
import { html } from "../lib/html.js";
import { useQuery } from "../lib/query.js";
import { useLocation } from "../lib/router.js";
import { Choice, Facts, Head, Loading, Problem, Section, State, Tabs, Tile, Tiles } from "../parts/basics.js";
import { Chart } from "../parts/chart.js";
import { Action } from "../parts/dialog.js";
import { CallList, ContainerList } from "../parts/lists.js";
import { Log } from "../parts/log.js";
import { Stages } from "../parts/starts.js";
import { Urls } from "./app.js";
import { Windowed, WINDOWS } from "../parts/window.js";

export function Function({ id }) {
  const { query, set } = useLocation();
  const { data, error, loading, refresh } = useQuery(`functions/${id}`, { topics: [`function:${id}`] });
  if (error && !data) return html`<${Head} title=${id} crumbs=${[["Apps", "/"]]} /><${Problem} error=${error} retry=${refresh} />`;
  if (loading) return html`<${Head} title=" " crumbs=${[["Apps", "/"]]} /><${Loading} />`;
  const tab = query.tab ?? "overview";
  const crumbs = [["Apps", "/"], [data.app || data.app_id, `/apps/${data.app_id}`]];
  return html`
    <${Head} title=${data.name} crumbs=${crumbs} id=${data.function_id} state=${html`<${State} is=${data.gone ? "gone" : data.app_state} />`}
      actions=${!data.gone && data.app_state !== "stopped" && html`<${Scale} of=${data} then=${refresh} />`}>
      ${data.gone ? html`<p class="faint">${data.gone}</p>` : ""}
      ${data.web?.length > 0 && html`<${Facts} facts=${[["Answers at", html`<${Urls} urls=${data.web} />`]]} />`}
    <//>
    <${Now} of=${data} />
    <${Tabs} chosen=${tab} choose=${(name) => set({ tab: name === "overview" ? "" : name })} tabs=${[
      ["overview", "Over time"], ["calls", "Calls"], ["containers", "Containers"], ["logs", "Log"], ["starts", "Cold starts"], ["declared", "Declared"]]} />
    ${tab === "overview" && html`<${OverTime} id=${id} /><${Section} title="Newest calls"><${CallList} one path=${`functions/${id}/calls`} topics=${[`function:${id}`, "calls"]} /><//>`}
    ${tab === "calls" && html`<${Calls} id=${id} />`}
    ${tab === "containers" && html`<${ContainerList} one parameters=${{ function: id, app: data.app_id, all: true }} topics=${["containers", `function:${id}`]} />`}
    ${tab === "logs" && html`<${Log} of=${{ function: id }} many />`}
    ${tab === "starts" && html`<${ColdStarts} of=${data} />`}
    ${tab === "declared" && html`<${Declared} of=${data} />`}`;
}

function Now({ of }) {
  const { now, latency, succeeded, failed, starts } = of;
  const ended = succeeded + failed;
  const known = (spread, value) => (spread?.count ? duration(value) : "–");
  return html`<${Tiles}>
    <${Tile} label="Containers" value=${count(now.containers)} of=${`room for ${count(now.headroom)}`} />
    <${Tile} label="Running" value=${count(now.running)} of="inputs" />
    <${Tile} label="Waiting" value=${count(now.backlog)} of="inputs" tone=${now.backlog ? "wait" : ""} />
    <${Tile} label="Latency p50" value=${known(latency, latency.p50)} of=${`p95 ${known(latency, latency.p95)}, p99 ${known(latency, latency.p99)}`} />
    <${Tile} label="Failed" value=${ended ? count(failed) : "–"} of=${ended ? `of the last ${plural(ended, "input")}` : "no calls yet"} tone=${failed ? "bad" : ""} />
    <${Tile} label="Cold start p50" value=${known(starts, starts?.p50)} of=${`p95 ${known(starts, starts?.p95)}`} />
  <//>`;
}

function OverTime({ id }) {
  return html`<${Windowed}>${(window) => html`<${Series} id=${id} window=${window} />`}<//>`;
}

function Series({ id, window }) {
  const seconds = WINDOWS[window];
  const { data, error } = useQuery(`functions/${id}/series`, { last: seconds, parameters: { points: 200 }, topics: [`function:${id}`], every: 10 });
  if (error && !data) return html`<${Problem} error=${error} />`;
  const { at = [], series = {} } = data ?? {};
  return html`<div class="charts">
    <${Chart} sync=${id} title="Containers" at=${at} format=${number} whole step series=${[
      { label: "ready", values: series.ready, tone: "good", fill: true }, { label: "starting", values: series.starting, tone: "wait" }]} />
    <${Chart} sync=${id} title="Inputs" at=${at} format=${number} whole step series=${[
      { label: "ended", values: series.inputs, tone: "live", fill: true }, { label: "failed", values: series.failed, tone: "bad" }]} />
    <${Chart} sync=${id} title="Latency" at=${at} format=${duration} dots series=${[
      { label: "p50", values: series.p50, tone: "live" }, { label: "p95", values: series.p95, tone: "wait" }]} />
  </div>`;
}

const number = (value) => (Number.isInteger(value) ? count(value) : value < 10 ? value.toFixed(1) : count(value));

function Calls({ id }) {
  const { query, set } = useLocation();
  const state = query.state ?? "";
  return html`
    <div class="tools"><${Choice} label="State" value=${state} set=${(value) => set({ state: value })}
      options=${[["", "All"], ["waiting", "Waiting"], ["running", "Running"], ["done", "Done"]]} /></div>
    <${CallList} one key=${state} path=${`functions/${id}/calls`} parameters=${{ state }} topics=${[`function:${id}`, "calls"]} />`;
}

function ColdStarts({ of }) {
  const { data, error, loading } = useQuery(`apps/${of.app_id}/stats`, { topics: ["containers"] });
  if (error) return html`<${Problem} error=${error} />`;
  if (loading) return html`<${Loading} />`;
  const mine = data.functions.find(({ function_id: id, function: name }) => id === of.function_id || name === of.name);
  const how = Object.entries(of.how ?? {}).map(([name, number]) => `${count(number)} ${name}`).join(", ");
  return html`${how && html`<p class="faint">How its containers came to be: ${how}</p>`}
    <${Stages} stages=${mine?.stages ?? []} remedies=${mine?.remedies} />`;
}

function Scale({ of, then }) {
  const scaling = of.scaling ?? {};
  const fields = [
    { name: "min_containers", label: "At least", hint: "containers that stay", value: scaling.min_containers },
    { name: "max_containers", label: "At most", hint: "empty: no limit of its own", value: scaling.max_containers },
    { name: "buffer_containers", label: "Spare", hint: "idle containers while it is busy", value: scaling.buffer_containers },
    { name: "scaledown_window", label: "Seconds idle", hint: "until a container ends", value: scaling.scaledown_window },
  ];
  return html`<${Action} label="Scale" title=${`Scale ${of.name}`} path=${`functions/${of.function_id}/scale`} fields=${fields} then=${then}
    text="It holds until the app is deployed anew. An empty field goes back to what was declared." />`;
}

function Declared({ of }) {
  const { declared: spec = {}, scaling = {} } = of;
  const { resources = {}, autoscaling = {}, retries = {} } = spec;
  const steps = spec.image?.steps ?? [];
  return html`<${Facts} facts=${[
    ["CPU", resources.cpu == null ? "default" : `${resources.cpu} cores${resources.cpu_limit ? `, at most ${resources.cpu_limit}` : ""}`],
    ["Memory", resources.memory == null ? "default" : `${mebibytes(resources.memory)}${resources.memory_limit ? `, at most ${mebibytes(resources.memory_limit)}` : ""}`],
    ["GPU", resources.gpus?.join(", else ")],
    ["Timeout", duration(spec.timeout ?? 300)],
    ["Retries", retries.max_retries > 0 && `${retries.max_retries}, after ${duration(retries.initial_delay)}`],
    ["Containers", `${scaling.min_containers ?? 0} to ${scaling.max_containers ?? "any number"}, ${scaling.buffer_containers ?? 0} spare`],
    ["Idle ones end after", scaling.scaledown_window != null && duration(scaling.scaledown_window)],
    ["Inputs at once", autoscaling.max_concurrent_inputs > 1 && count(autoscaling.max_concurrent_inputs)],
    ["Batches", autoscaling.batch_size > 0 && `of ${autoscaling.batch_size}, gathered for ${duration(autoscaling.batch_wait)}`],
    ["Schedule", scheduled(spec.schedule)],
    ["Methods", spec.methods?.map(({ name }) => name).join(", ")],
    ["Volumes", spec.volumes?.length > 0 && html`${spec.volumes.map(({ path, volume_id: volume, read_only: fixed }) => html`
      <span key=${path}><a href=${`/volumes/${volume}`}><code>${path}</code></a>${fixed ? " (read only) " : " "}</span>`)}`],
    ["Secrets", spec.secrets?.length > 0 && plural(spec.secrets.length, "secret")],
    ["Environment", spec.env_names?.length > 0 && html`<code>${spec.env_names.join(", ")}</code>`],
    ["Network", spec.block_network && "none"],
    ["Disk", resources.ephemeral_disk && bytes(resources.ephemeral_disk * 1048576)],
    ["Image", steps.length > 0 && html`<ol class="steps">${steps.map((step, at) => html`<li key=${at}><code>${step.op} ${words(step)}</code></li>`)}</ol>`],
    ["Variants", of.variants > 0 && count(of.variants)],
  ]} />`;
}

const words = ({ packages, command, python, path }) => [packages, command, python, path].flat().filter(Boolean).join(" ").slice(0, 300);
