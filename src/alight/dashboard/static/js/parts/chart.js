// Charts over time. The library draws on a canvas; colours come from the theme, the legend shows the value under the cursor.
import { bytes, stamp } from "../lib/format.js";
import { html, useEffect, useRef, useState } from "../lib/html.js";

const HEIGHT = 150;

/**
 * `at` are unix times, `series` [{label, values, tone, fill}] with null for what is not known. `format` makes a value
 * readable, `whole` values are counted, `dots` shows values that
 * stand alone, `span` draws lines over what is not known, `least` is where the axis ends at least,
 * `bars` are columns so many seconds apart. Charts with the same `sync` share their cursor. The place is as high before the data is there as after.
 */
export function Chart({ title, at, series, format = String, sync, most, whole = false, step = false, dots = false, span = false, bars = 0, least = 0 }) {
  const place = useRef(null);
  const plot = useRef(null);
  const data = useRef(null);
  data.current = columns(at, series);
  const [under, setUnder] = useState(null);
  const [theme, setTheme] = useState(0);
  const shape = JSON.stringify([series.map(({ label, tone, fill }) => [label, tone, fill]), theme, most]);

  useEffect(() => {
    const again = () => setTheme((number) => number + 1);
    window.addEventListener("alight-theme", again);
    const system = matchMedia("(prefers-color-scheme: dark)");
    system.addEventListener("change", again);
    return () => {
      window.removeEventListener("alight-theme", again);
      system.removeEventListener("change", again);
    };
  }, []);

  useEffect(() => {
    let [alive, observer] = [true, null];
    const begin = async () => {
      const { default: UPlot } = await import("../../vendor/uplot.mjs");
      if (!alive || !place.current) return;
      const options = drawing({ series, format, sync, most, whole, step, dots, span, bars, least, width: place.current.clientWidth, setUnder, UPlot });
      plot.current = new UPlot(options, data.current, place.current);
      observer = new ResizeObserver(() => place.current && plot.current?.setSize({ width: place.current.clientWidth, height: HEIGHT }));
      observer.observe(place.current);
    };
    begin();
    return () => {
      alive = false;
      observer?.disconnect();
      plot.current?.destroy();
      plot.current = null;
    };
  }, [shape]);

  useEffect(() => {
    plot.current?.setData(data.current);
  }, [at, series]);

  const index = under ?? lastKnown(series);
  return html`
    <figure class="chart">
      <figcaption><span class="name">${title}</span>
        <span class="legend">${series.map(({ label, values, tone }) => html`
          <span key=${label} class="num"><i class=${tone} aria-hidden="true"></i>${label}
            <b>${values?.[index] == null ? "–" : format(values[index])}</b></span>`)}</span>
        <time class="faint num">${under !== null && at[under] ? stamp(at[under]).slice(0, 8) : ""}</time>
      </figcaption>
      <div class="plot" ref=${place}></div>
    </figure>`;
}

const WHOLE = [1, 2, 5].flatMap((number) => [0, 1, 2, 3, 4, 5, 6].map((power) => number * 10 ** power)).sort((one, other) => one - other);

const BINARY = Array.from({ length: 50 }, (_, power) => 2 ** power);

const columns = (at, series) => [at ?? [], ...series.map(({ values }) => values ?? [])];

function lastKnown(series) {
  const values = series[0]?.values ?? [];
  for (let index = values.length - 1; index >= 0; index -= 1) if (values[index] != null) return index;
  return values.length - 1;
}

function drawing({ series, format, sync, most, whole, step, dots, span, bars, least, width, setUnder, UPlot }) {
  const theme = getComputedStyle(document.documentElement);
  const of = (name) => theme.getPropertyValue(name).trim();
  const axis = {
    stroke: of("--faint"), font: `11px ${of("--sans")}`, ticks: { show: false },
    grid: { stroke: of("--line"), width: 1 },
  };
  return {
    width,
    height: HEIGHT,
    padding: [8, 22, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false }, ...(sync && { sync: { key: sync } }) },
    scales: { x: { time: true, ...(bars && { range: (_, low, high) => [low - bars / 2, high + bars / 2] }) }, y: { range: (_, low, high) => [0, most ?? Math.max(high * 1.1 || 1, least)] } },
    axes: [
      { ...axis, grid: { show: false }, size: 26, space: 70, values: times },
      { ...axis, size: 58, space: 34, ...((whole && { incrs: WHOLE }) || (format === bytes && { incrs: BINARY })), values: (_, ticks) => ticks.map((tick) => format(tick)) },
    ],
    series: [{}, ...series.map(({ label, tone, fill }) => ({
      label, stroke: of(`--${tone}`), width: 1.5, spanGaps: span, points: { show: dots, size: 4, fill: of(`--${tone}`) },
      ...(bars && { paths: UPlot.paths.bars({ size: [0.6, 48] }) }),
      ...(step && { paths: UPlot.paths.stepped({ align: -1 }) }),
      ...(fill && { fill: `color-mix(in srgb, ${of(`--${tone}`)} 14%, transparent)` }),
    }))],
    hooks: { setCursor: [(chart) => setUnder(chart.cursor.idx ?? null)] },
  };
}

/** Hours and minutes; seconds when the ticks stand closer, days when they stand wider. */
function times(_, ticks) {
  const apart = ticks.length > 1 ? ticks[1] - ticks[0] : 60;
  return ticks.map((tick) => {
    const date = new Date(tick * 1000);
    if (apart >= 86400) return date.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
    const parts = { hour: "2-digit", minute: "2-digit", ...(apart < 60 && { second: "2-digit" }) };
    return date.toLocaleTimeString("en-GB", parts);
  });
}
