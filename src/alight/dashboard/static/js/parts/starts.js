// Where the time of cold starts goes: percentiles over many, or the stages of one.
import { duration } from "../lib/format.js";
import { html } from "../lib/html.js";
import { Bar, Empty } from "./basics.js";

const WORDS = {
  wait: "waiting for room", place: "placing", image: "image", mounts: "mounts", network: "network", exec: "starting the process",
  fork: "forking", runtime: "Python", import: "imports", enter: "enter hooks", first_input: "first input", other: "between", total: "total",
};
const TONES = {
  wait: "c1", place: "c2", image: "c3", mounts: "c4", network: "c5", exec: "c6", fork: "c6", runtime: "c2", import: "c3",
  enter: "c4", first_input: "c5", other: "rest",
};

/** Percentiles by stage. */
export function Stages({ stages, remedies = [] }) {
  const total = stages.find(({ name }) => name === "total");
  const parts = stages.filter(({ name, p95 }) => name !== "total" && p95 >= 0.0005);
  if (!parts.length) return html`<${Empty} title="Nothing was measured yet." />`;
  const most = Math.max(...parts.map(({ p95 }) => p95), 1e-9);
  return html`
    <table class="stages">
      <thead><tr><th scope="col">Stage</th><th></th><th scope="col">p50</th><th scope="col">p95</th><th scope="col" class="wide">p99</th></tr></thead>
      <tbody>${[...parts, total].filter(Boolean).map(({ name, p50, p95, p99 }) => html`
        <tr key=${name} class=${name === "total" ? "strong" : undefined}><th scope="row">${WORDS[name] ?? name}</th>
          <td class="meter">${name !== "total" && html`<i class="rest" style=${{ width: `${(p95 / most) * 100}%` }}></i><i class=${TONES[name] ?? "rest"} style=${{ width: `${(p50 / most) * 100}%` }}></i>`}</td>
          <td class="num">${duration(p50)}</td><td class="num">${duration(p95)}</td><td class="num wide">${duration(p99)}</td></tr>`)}</tbody>
    </table>
    <${Remedies} remedies=${remedies} />`;
}

/** One start: a bar of its stages, what was slow to import, what would make it shorter. */
export function Start({ start, total }) {
  const parts = start.stages.map(({ name, seconds }) => ({ name: `${WORDS[name] ?? name}: ${duration(seconds)}`, value: seconds, tone: TONES[name] ?? "rest" }));
  return html`
    <${Bar} parts=${parts} label=${`Start: ${parts.map(({ name }) => name).join(", ")}`} />
    <ul class="key">${start.stages.filter(({ seconds }) => seconds >= 0.0005).map(({ name, seconds }) => html`
      <li key=${name}><i class=${TONES[name] ?? "rest"} aria-hidden="true"></i>${WORDS[name] ?? name} <b class="num">${duration(seconds)}</b></li>`)}
      ${total != null && html`<li><b>total</b> <b class="num">${duration(total)}</b></li>`}</ul>
    ${start.imports?.length > 0 && html`<p class="faint">Slow imports: ${start.imports.slice(0, 5).map(([name, seconds]) => `${name} ${duration(seconds)}`).join(", ")}</p>`}
    ${start.waited && html`<p class="faint">It waited for ${start.waited}.</p>`}
    ${start.refused?.map((why) => html`<p key=${why} class="faint">Not forked from a template: ${why}</p>`)}
    <${Remedies} remedies=${start.remedies ?? []} />`;
}

const Remedies = ({ remedies }) => remedies.length > 0 && html`
  <ul class="remedies">${remedies.map((remedy) => html`<li key=${remedy}>${remedy}</li>`)}</ul>`;
