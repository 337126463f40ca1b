// One machine: cores, memory and each GPU over time, and what runs there.
import { me } from "../lib/api.js";
import { bytes, cores, count, degrees, percent, watts } from "../lib/format.js";
import { html } from "../lib/html.js";
import { known, useQuery } from "../lib/query.js";
import { Ago, Facts, Head, Loading, Problem, Section, State } from "../parts/basics.js";
import { Chart } from "../parts/chart.js";
import { ContainerList } from "../parts/lists.js";
import { Windowed, WINDOWS } from "../parts/window.js";
import { Gpu, gpuWords } from "./machines.js";

export function Machine({ id }) {
  const nodes = useQuery("nodes", { topics: ["nodes", "containers"], every: 5 });
  const gpus = useQuery("gpus", { topics: ["nodes", "containers"], every: 2 });
  const { data, error, loading, refresh } = nodes;
  const crumbs = [["Machines", "/machines"]];
  if (error && !data) return html`<${Head} title=${id} crumbs=${crumbs} /><${Problem} error=${error} retry=${refresh} />`;
  if (loading || gpus.loading) return html`<${Head} title=" " crumbs=${crumbs} /><${Loading} />`;
  const node = data.nodes.find(({ node_id: name }) => name === id);
  if (!node) return html`<${Head} title=${id} crumbs=${crumbs} /><${Problem} error=${{ message: `there is no machine ${id}`, hint: "alight node list" }} />`;
  const mine = (gpus.data?.gpus ?? []).filter(({ node_id: name }) => name === id);
  return html`
    <${Head} title=${node.hostname} crumbs=${crumbs} id=${id} state=${html`<${State} is=${node.state} tone=${node.state === "connected" ? "good" : "bad"} />`}>
      <${Facts} facts=${[
        ["Cores", node.cpus > 0 && count(node.cpus)], ["Memory", node.memory > 0 && bytes(node.memory)], ["GPUs", node.gpus.length > 0 && gpuWords(node)],
        ["Containers", count(node.containers)], ["Engine", node.engine], ["Version", node.version],
        ["Last heard of", node.state !== "connected" && node.last_seen > 0 && html`<${Ago} at=${node.last_seen} />`],
      ]} />
    <//>
    ${me()?.kind === "owner"
      ? html`<${Windowed} first="15m">${(window) => html`<${OverTime} key=${window} node=${node} gpus=${mine} seconds=${WINDOWS[window]} />`}<//>`
      : html`${mine.length > 0 && html`<div class="gpus">${mine.map((gpu) => html`<${Gpu} key=${gpu.uuid} gpu=${gpu} />`)}</div>`}
        <p class="faint">Machines over time are shown to the owner of the server.</p>`}
    <${Section} title="Containers"><${ContainerList} keep=${({ node_id: name }) => name === id} /><//>`;
}

const ask = (path, seconds) => useQuery(path, { last: seconds, every: 5, parameters: { points: 300 } });

function OverTime({ node, gpus, seconds }) {
  const { data, error } = ask(`nodes/${node.node_id}/series`, seconds);
  if (error && !data) return html`<${Problem} error=${error} />`;
  const { at, series } = known(data);
  const chart = (title, name, format, more) => html`<${Chart} sync=${node.node_id} title=${title} at=${at} format=${format} span
    series=${[{ label: "used", values: series[name], tone: "live", fill: true }]} ...${more} />`;
  return html`
    <div class="charts two">${chart("CPU", "cpu", cores, { most: node.cpus || undefined })}${chart("Memory", "memory_bytes", bytes, { most: node.memory || undefined })}</div>
    ${gpus.map((gpu) => html`<${GpuOverTime} key=${gpu.uuid} gpu=${gpu} seconds=${seconds} sync=${node.node_id} />`)}`;
}

function GpuOverTime({ gpu, seconds, sync }) {
  const { data, error } = ask(`gpus/${gpu.uuid}/series`, seconds);
  const { at, series } = known(data);
  const chart = (title, label, name, format, tone, more) => html`<${Chart} sync=${sync} title=${title} at=${at} format=${format} span
    series=${[{ label, values: series[name], tone, fill: tone === "good" }]} ...${more} />`;
  return html`<${Section} title=${`GPU ${gpu.index}`}>
    ${error && !data && html`<${Problem} error=${error} />`}
    <div class="charts gpu-line"><${Gpu} gpu=${gpu} />
      ${chart("Utilisation", "busy", "gpu_utilization", percent, "good", { most: 1 })}
      ${chart("Memory", "used", "gpu_memory_bytes", bytes, "good", { most: gpu.memory || undefined })}
      ${chart("Power", "draws", "gpu_power_watts", watts, "wait")}
      ${chart("Temperature", "is", "gpu_temperature", degrees, "wait", { least: 40 })}</div><//>`;
}
