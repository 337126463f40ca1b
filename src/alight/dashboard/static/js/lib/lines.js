// The lines of a log that a page holds: the newest ones, older ones as somebody scrolls up to them, never more than MOST.
// They come as server-sent events, read in pieces of many lines, since a busy container writes thousands a second.
import { patient, Refused, url } from "./api.js";

const MOST = 100_000;
const PART = 2_000;
const AGAIN = 1_000; // ms until a lost connection is tried again

export class Lines {
  /** `parameters` are those of GET logs; `changed(how)` is called at most once a frame, with {added, before, dropped}. */
  constructor(parameters, changed) {
    Object.assign(this, { parameters, changed, rows: [], ended: false, error: null, first: false, last: "" });
    this.open = new Map();
    this.stop = new AbortController();
    this.news = { added: 0, before: 0, dropped: 0 };
    this.frame = 0;
    this.older = false;
    this.start();
  }

  async start() {
    while (!this.stop.signal.aborted && !this.ended) {
      try {
        const tail = this.last ? null : PART;
        await this.read({ ...this.parameters, follow: true, tail }, (rows) => this.append(rows));
        this.error = null;
      } catch (error) {
        if (this.stop.signal.aborted) return;
        this.error = error;
        if (error.status >= 400 && error.status < 500) this.ended = true;
      }
      this.tell();
      if (!this.ended) await new Promise((then) => setTimeout(then, AGAIN));
    }
  }

  close() {
    this.stop.abort();
    cancelAnimationFrame(this.frame);
  }

  append(records) {
    this.news.added += joinLines(this.rows, records, this.open);
    const over = this.rows.length - MOST;
    if (over > MOST / 10) {
      this.rows.splice(0, over);
      this.news.dropped += over;
      this.first = false;
    }
    this.tell();
  }

  /** Loads the lines before the first one that is held. */
  async loadOlder() {
    if (this.older || this.first || !this.rows.length || this.rows.length >= MOST) return;
    this.older = true;
    const found = [];
    const open = new Map();
    try {
      // Many lines may have the time of the first one, for what is written at once has one time: those that are held
      // already are asked for again, and taken out.
      const until = this.rows[0].at + 1e-6;
      const held = this.rows.slice(0, this.rows.findIndex(({ at }) => at >= until) >>> 0);
      const tail = PART + held.length;
      await this.read({ ...this.parameters, until, tail }, (records) => joinLines(found, records, open));
      const fresh = without(found, held);
      if (fresh.length < PART) this.first = true;
      if (fresh.length) this.rows = [...fresh, ...this.rows];
      this.news.before += fresh.length;
    } catch (error) {
      if (!this.stop.signal.aborted) this.error = error;
    }
    this.older = false;
    this.tell();
  }

  tell() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      const news = this.news;
      this.news = { added: 0, before: 0, dropped: 0 };
      this.changed(news);
    });
  }

  async read(parameters, take) {
    const headers = { accept: "text/event-stream" };
    if (parameters.follow && this.last) headers["last-event-id"] = this.last;
    const response = await patient(url("logs", parameters), { headers, signal: this.stop.signal });
    if (!response.ok) {
      const { error } = await response.json().catch(() => ({}));
      throw new Refused(response.status, error);
    }
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      take(this.decoded(parts, parameters.follow));
    }
  }

  decoded(parts, live) {
    const rows = [];
    for (const part of parts) {
      const { id, event, data } = fields(part);
      if (event === "end" && live) this.ended = true;
      if (event === "problem") throw new Refused(0, JSON.parse(data).error);
      if (event !== "line") continue;
      if (live && id) this.last = id;
      rows.push(JSON.parse(data));
    }
    return rows;
  }
}

const name = ({ at, container_id: container, source, text }) => `${at} ${container} ${source} ${text}`;

/** The rows that are not among `held`, each of which takes away one. */
function without(rows, held) {
  const counts = new Map();
  for (const row of held) counts.set(name(row), (counts.get(name(row)) ?? 0) + 1);
  return rows.filter((row) => {
    const left = counts.get(name(row)) ?? 0;
    if (left) counts.set(name(row), left - 1);
    return !left;
  });
}

const LONG = 4_096; // an unfinished line, a progress bar say, keeps what came after its last carriage return

/**
 * Cuts records into lines behind `rows` and returns how many there are more. A record may hold several lines, and end in
 * the middle of one: `open` holds the unfinished line of each container and source.
 */
export function joinLines(rows, records, open) {
  const before = rows.length;
  for (const record of records) {
    const whose = `${record.container_id} ${record.source}`;
    const parts = String(record.text).split("\n");
    const rest = parts.pop();
    if (parts.length) {
      const unfinished = open.get(whose);
      if (unfinished) unfinished.text += parts.shift();
      for (const text of parts) rows.push({ ...record, text });
      open.delete(whose);
    }
    if (rest === "") continue;
    const unfinished = open.get(whose);
    if (!unfinished) {
      const row = { ...record, text: rest };
      rows.push(row);
      open.set(whose, row);
      continue;
    }
    unfinished.text += rest;
    if (unfinished.text.length > LONG) {
      const from = unfinished.text.lastIndexOf("\r", unfinished.text.length - 2);
      if (from > 0) unfinished.text = unfinished.text.slice(from);
    }
  }
  return rows.length - before;
}

function fields(part) {
  const found = {};
  for (const line of part.split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) found[line.slice(0, colon)] = line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
  }
  return found;
}
