// One container: its log as it is written, what it uses, how it started, its volumes, a terminal.
import { me } from "../lib/api.js";
import { bytes, cores, duration, mebibytes, percent, perSecond, watts } from "../lib/format.js";
import { html } from "../lib/html.js";
import { known, useQuery } from "../lib/query.js";
import { useLocation } from "../lib/router.js";
import { Ago, Empty, Facts, Head, Loading, Problem, Section, State, Tabs, Took } from "../parts/basics.js";
import { Chart } from "../parts/chart.js";
import { Action } from "../parts/dialog.js";
import { alive } from "../parts/lists.js";
import { Log } from "../parts/log.js";
import { Start } from "../parts/starts.js";
import { Shell } from "../parts/terminal.js";
import { Windowed, WINDOWS } from "../parts/window.js";

export function Container({ id }) {
  const { query, set } = useLocation();
  const { data, error, loading, refresh } = useQuery(`containers/${id}`, { topics: [`container:${id}`] });
  const first = [["Containers", "/containers"]];
  if (error && !data) return html`<${Head} title=${id} crumbs=${first} /><${Problem} error=${error} retry=${refresh} />`;
  if (loading) return html`<${Head} title=${id} crumbs=${first} /><${Loading} />`;
  const { container, start, volumes = [] } = data;
  const lives = alive(container);
  const tab = query.tab ?? "logs";
  const crumbs = [["Apps", "/"], [container.app, `/apps/${container.app_id}`], [container.function, `/functions/${container.function_id}`]];
  const terminal = lives && me()?.terminal;
  return html`
    <${Head} title="Container" crumbs=${crumbs} id=${id} state=${html`<${State} is=${container.state} tone=${container.exit_code || container.signal ? "bad" : undefined} />`}
      actions=${lives && html`<${Action} label="Stop" danger title="Stop this container?" path=${`containers/${id}/stop`} body=${{ grace: 30 }} then=${refresh}
        text="It has 30 seconds to end. What it runs is tried again elsewhere." />`}>
      <${Facts} facts=${[
        ["Machine", html`<a href=${`/machines/${container.node_id}`}>${container.machine}</a>`], ["Memory", container.memory > 0 && mebibytes(container.memory)],
        ["GPUs", container.gpus.length > 0 && html`<code>${container.gpus.join(", ")}</code>`],
        ["How they are shared", start?.gpus?.length > 0 && start.gpus.join(" ")],
        ["Began", html`<${Ago} at=${container.created_at} />`], ["Lived", html`<${Took} from=${container.created_at} to=${container.ended_at} />`],
        ["Came to be", container.how && `${container.how}${container.total == null ? "" : ` in ${duration(container.total)}`}`],
        ["Ended", !lives && ending(container)],
        ["Volumes", volumes.length > 0 && html`<${Volumes} volumes=${volumes} />`],
      ]} />
    <//>
    <${Tabs} chosen=${tab} choose=${(name) => set({ tab: name === "logs" ? "" : name })} tabs=${[
      ["logs", "Log"], ["usage", "Usage"], ["start", "Start"], terminal && ["terminal", "Terminal"]]} />
    ${tab === "logs" && html`<${Log} of=${{ container: id }} />`}
    ${tab === "usage" && html`<${Usage} container=${container} />`}
    ${tab === "start" && (start ? html`<${Section} title="Where the start went"><${Start} start=${start} total=${container.total} /><//>`
      : html`<${Empty} title="Nothing is known of this start." />`)}
    ${tab === "terminal" && (terminal ? html`<${Shell} container=${id} />` : html`<${Empty} title="There is no terminal for this container."
      command=${lives ? `alight shell ${id}` : undefined}>${lives ? "It is switched off here; the command line has one:" : "It has ended."}<//>`)}`;
}

const ending = ({ why, exit_code: code, signal }) =>
  [why, signal ? `signal ${signal}` : code ? `exit code ${code}` : ""].filter(Boolean).join(", ") || "by itself";

const Volumes = ({ volumes }) => html`<span class="urls">${volumes.map(({ volume_id: id, name, path, read_only: fixed }) => html`
  <span key=${path}><${VolumeLink} id=${id} name=${name} /> <span class="faint">at <code>${path}</code>${fixed ? ", read only" : ""}</span></span>`)}</span>`;

function VolumeLink({ id, name }) {
  const { data } = useQuery(name ? null : `volumes/${id}`);
  return html`<a href=${`/volumes/${id}`}>${name || data?.volume.name || "volume"}</a>`;
}

const Usage = ({ container }) => html`<${Windowed} first="15m">${(window) => html`<${Series} key=${window} container=${container} seconds=${WINDOWS[window]} />`}<//>`;

function Series({ container, seconds }) {
  const id = container.container_id;
  const ended = container.ended_at;
  const parameters = { points: 300, ...(ended && { since: Math.max(container.created_at, ended - seconds), until: ended }) };
  const { data, error } = useQuery(`containers/${id}/series`, { parameters, last: ended ? 0 : seconds, every: ended ? 0 : 2 });
  if (error && !data) return html`<${Problem} error=${error} />`;
  const { at, series } = known(data);
  const has = (...names) => names.some((name) => series[name]?.some((value) => value != null));
  const chart = (title, format, lines, more = {}) => html`<${Chart} key=${title} sync=${id} title=${title} at=${at} format=${format} span series=${lines} ...${more} />`;
  const line = (label, name, tone, fill = false) => ({ label, values: series[name], tone, fill });
  return html`<div class="charts">
    ${chart("CPU", cores, [line("cores", "cpu", "live", true)], { least: 0.1 })}
    ${chart("Memory", bytes, [line("used", "memory_bytes", "live", true)])}
    ${has("gpu_utilization") && chart("GPU utilisation", percent, [line("busy", "gpu_utilization", "good", true)], { most: 1 })}
    ${has("gpu_memory_bytes") && chart("GPU memory", bytes, [line("used", "gpu_memory_bytes", "good", true)])}
    ${has("gpu_power_watts") && chart("GPU power", watts, [line("draws", "gpu_power_watts", "wait")])}
    ${has("net_rx", "net_tx") && chart("Network", perSecond, [line("in", "net_rx", "live"), line("out", "net_tx", "wait")])}
    ${has("disk_read", "disk_write") && chart("Disk", perSecond, [line("read", "disk_read", "live"), line("written", "disk_write", "wait")])}
  </div>`;
}
