// What a call called, and what that called: as an indented list.
import { html, useState } from "../lib/html.js";
import { useQuery } from "../lib/query.js";
import { Empty, Loading, Problem, State } from "./basics.js";

const FIRST = 200; // inputs below one that are drawn until somebody asks for more

export function Graph({ id }) {
  const { data, error, loading, refresh } = useQuery(`calls/${id}/graph`, { topics: [`call:${id}`] });
  if (error && !data) return html`<${Problem} error=${error} retry=${refresh} />`;
  if (loading) return html`<${Loading} />`;
  const below = new Map();
  for (const input of data.inputs) below.set(input.parent, [...(below.get(input.parent) ?? []), input]);
  const roots = below.get("") ?? [];
  if (!roots.length) return html`<${Empty} title="No input has come yet." />`;
  return html`<${Inputs} inputs=${roots} below=${below} here=${id} />`;
}

function Inputs({ inputs, below, here }) {
  const [most, set] = useState(FIRST);
  return html`<ul class="graph">${inputs.slice(0, most).map((input) => html`
    <li key=${input.input_id}><span class="node">
      <${State} is=${input.status || "running"} />
      <span class="strong">${input.function}</span>
      ${input.call_id !== here && html`<a href=${`/calls/${input.call_id}`}><code>${input.call_id}</code></a>`}
      ${input.container && html`<a class="faint" href=${`/containers/${input.container}`}><code>${input.container}</code></a>`}</span>
      ${below.has(input.input_id) && html`<${Inputs} inputs=${below.get(input.input_id)} below=${below} here=${here} />`}</li>`)}
    ${inputs.length > most && html`<li><button type="button" class="quiet" onClick=${() => set(most + 1000)}>${inputs.length - most} more</button></li>`}</ul>`;
}
