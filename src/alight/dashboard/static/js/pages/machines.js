// The machines, and who holds which GPU.
import { bytes, count, percent, plural, short } from "../lib/format.js";
import { html } from "../lib/html.js";
import { useQuery } from "../lib/query.js";
import { Bar, Command, Empty, Head, Id, Loading, Problem, Section, State } from "../parts/basics.js";
import { RowLink, Table } from "../parts/table.js";

const MACHINES = [
  { label: "Machine", width: "minmax(0, 1fr)", phone: true, cell: (node) => html`<${RowLink} href=${`/machines/${node.node_id}`}>${node.hostname}<//>` },
  { label: "Id", width: "104px", cell: ({ node_id: id }) => html`<${Id} id=${id} />` },
  { label: "State", width: "104px", phone: true, cell: ({ state }) => html`<${State} is=${state} tone=${state === "connected" ? "good" : "bad"} />` },
  { label: "Cores busy", width: "minmax(140px, 0.8fr)", cell: ({ cpu, cpus }) => html`<${Part} used=${cpu} of=${cpus}
    text=${`${cpu == null ? "–" : cpu.toFixed(1)} / ${count(cpus)}`} />` },
  { label: "Memory used", width: "minmax(220px, 1.2fr)", cell: ({ memory, memory_used: used }) => html`<${Part} used=${used} of=${memory}
    text=${`${bytes(used)} / ${bytes(memory)}`} />` },
  { label: "GPUs", width: "minmax(0, 1.6fr)", cell: (node) => html`<span class="cut" title=${gpuWords(node)}>${gpuWords(node)}</span>` },
  { label: "Containers", width: "84px", num: true, phone: true, cell: ({ containers }) => count(containers) },
];

const Part = ({ used, of, text }) => html`<span class="inputs"><span class="num">${text}</span>
  <${Bar} label=${text} parts=${[{ name: "used", value: used ?? 0, tone: "live" }, { name: "free", value: Math.max(0, of - (used ?? 0)), tone: "rest" }]} /></span>`;

/** "2 × A100-40GB (fake)" */
export function gpuWords({ gpus, fake_gpus: fake }) {
  const kinds = new Map();
  for (const gpu of gpus) kinds.set(gpu, (kinds.get(gpu) ?? 0) + 1);
  const words = [...kinds].map(([name, number]) => `${number} × ${name}`).join(", ");
  return words ? words + (fake && !/fake/i.test(words) ? " (fake)" : "") : "–";
}

export function Machines() {
  const nodes = useQuery("nodes", { topics: ["nodes", "containers"], every: 5 });
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

/** One GPU as it is now. */
export function Gpu({ gpu }) {
  const { name, index, machine, memory, memory_used: used, utilization, temperature, power, health, fault, fake } = gpu;
  const holders = gpu.holders?.length ? gpu.holders : [gpu.holder].filter(Boolean);
  const wrong = fault || (health && !["ok", "healthy", ""].includes(health) ? health : "");
  return html`<article class="gpu">
    <header><span class="strong">${name}${fake && !/fake/i.test(name) ? html` <span class="faint">fake</span>` : ""}</span>
      <${State} is=${wrong ? "out of service" : holders.length ? "held" : "free"} tone=${wrong ? "bad" : holders.length ? "live" : "good"} /></header>
    <p class="faint cut"><a href=${`/machines/${gpu.node_id}`}>${machine}</a>, number ${index} · <${Id} id=${gpu.uuid} /></p>
    ${wrong && html`<p class="bad">${wrong}</p><${Command} text=${`alight gpu restore ${gpu.uuid}`} />`}
    <div class="meters">
      <span>Busy</span><${Bar} label="Utilisation" parts=${[{ name: "busy", value: utilization ?? 0, tone: "live" }, { name: "idle", value: 1 - (utilization ?? 0), tone: "rest" }]} /><b class="num">${percent(utilization)}</b>
      <span>Memory</span><${Bar} label="Memory" parts=${[{ name: "used", value: used ?? 0, tone: "live" }, { name: "free", value: Math.max(0, memory - (used ?? 0)), tone: "rest" }]} /><b class="num">${used == null ? bytes(memory) : `${bytes(used)} of ${bytes(memory)}`}</b>
    </div>
    <p class="num faint">${temperature == null ? "– °C" : `${Math.round(temperature)} °C`} · ${power == null ? "– W" : `${Math.round(power)} W`}</p>
    <p class="cut">${holders.length ? holders.map((id) => html`<a key=${id} href=${`/containers/${id}`}>${(id === gpu.holder && gpu.holder_function) || html`<code>${short(id)}</code>`}</a> `) : html`<span class="faint">held by nobody</span>`}</p>
  </article>`;
}
