// The machines, and who holds which GPU.
import { bytes, count, mebibytes, percent, plural, short } from "../lib/format.js";
import { html } from "../lib/html.js";
import { useQuery } from "../lib/query.js";
import { Bar, Empty, Head, Id, Loading, Problem, Section, State } from "../parts/basics.js";
import { Table } from "../parts/table.js";

const MACHINES = [
  { label: "Machine", width: "minmax(0, 2fr)", phone: true, cell: (node) => html`<span class="strong cut">${node.hostname}</span>` },
  { label: "Id", width: "140px", cell: ({ node_id: id }) => html`<${Id} id=${id} />` },
  { label: "Engine", width: "90px", cell: ({ engine }) => engine },
  { label: "Cores", width: "72px", num: true, phone: true, cell: ({ cpus }) => count(cpus) },
  { label: "Memory", width: "92px", num: true, phone: true, cell: ({ memory }) => mebibytes(memory) },
  { label: "GPUs", width: "minmax(0, 1fr)", num: true, cell: (node) => html`<span class="cut">${gpuWords(node)}</span>` },
  { label: "Containers", width: "92px", num: true, phone: true, cell: ({ containers }) => count(containers) },
];

/** "2 × A100-40GB (fake)" */
function gpuWords({ gpus, fake_gpus: fake }) {
  const kinds = new Map();
  for (const gpu of gpus) kinds.set(gpu, (kinds.get(gpu) ?? 0) + 1);
  const words = [...kinds].map(([name, number]) => `${number} × ${name}`).join(", ");
  return words ? words + (fake ? " (fake)" : "") : "–";
}

export function Machines() {
  const nodes = useQuery("nodes", { topics: ["nodes", "containers"], every: 10 });
  const gpus = useQuery("gpus", { topics: ["nodes", "containers"], every: 2 });
  const { data, error, loading, refresh } = nodes;
  return html`
    <${Head} title="Machines" />
    ${error && !data ? html`<${Problem} error=${error} retry=${refresh} />`
      : loading ? html`<${Loading} rows=${2} />`
      : data.nodes.length ? html`<${Table} label="Machines" columns=${MACHINES} rows=${data.nodes} named=${({ node_id: id }) => id} />`
      : html`<${Empty} title="No machine is connected." command="alight server status">The server runs, but the agent of this machine does not answer.<//>`}
    <${Section} title="GPUs" aside=${gpus.data && html`<span class="faint">${plural(gpus.data.gpus.length, "GPU")}</span>`}>
      ${gpus.error && !gpus.data ? html`<${Problem} error=${gpus.error} retry=${gpus.refresh} />`
        : gpus.loading ? html`<${Loading} rows=${2} />`
        : gpus.data.gpus.length ? html`<div class="gpus">${gpus.data.gpus.map((gpu) => html`<${Gpu} key=${gpu.uuid} gpu=${gpu} />`)}</div>`
        : html`<${Empty} title="No machine has a GPU." command="alight doctor" />`}
    <//>`;
}

function Gpu({ gpu }) {
  const { name, index, machine, memory, memory_used: used, utilization, temperature, power, health, fault, fake } = gpu;
  const holders = gpu.holders?.length ? gpu.holders : [gpu.holder].filter(Boolean);
  const wrong = fault || (health && !["ok", "healthy", ""].includes(health) ? health : "");
  return html`<article class="gpu">
    <header><span class="strong">${name}${fake ? html` <span class="faint">fake</span>` : ""}</span>
      <${State} is=${wrong ? "out of service" : holders.length ? "held" : "free"} tone=${wrong ? "bad" : holders.length ? "live" : "good"} /></header>
    <p class="faint cut">${machine}, number ${index} · <${Id} id=${gpu.uuid} /></p>
    ${wrong && html`<p class="bad">${wrong}</p>`}
    <div class="meters">
      <span>Busy</span><${Bar} label="Utilisation" parts=${[{ name: "busy", value: utilization ?? 0, tone: "live" }, { name: "idle", value: 1 - (utilization ?? 0), tone: "rest" }]} /><b class="num">${percent(utilization)}</b>
      <span>Memory</span><${Bar} label="Memory" parts=${[{ name: "used", value: used ?? 0, tone: "live" }, { name: "free", value: Math.max(0, memory - (used ?? 0)), tone: "rest" }]} /><b class="num">${used == null ? bytes(memory) : `${bytes(used)} of ${bytes(memory)}`}</b>
    </div>
    <p class="num faint">${temperature == null ? "– °C" : `${Math.round(temperature)} °C`} · ${power == null ? "– W" : `${Math.round(power)} W`}</p>
    <p class="cut">${holders.length ? holders.map((id) => html`<a key=${id} href=${`/containers/${id}`}>${(id === gpu.holder && gpu.holder_function) || html`<code>${short(id)}</code>`}</a> `) : html`<span class="faint">held by nobody</span>`}</p>
  </article>`;
}
