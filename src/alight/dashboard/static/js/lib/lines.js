// The lines of a log that a page holds: the newest ones, older ones as somebody scrolls up to them, never more than MOST.
// They come as server-sent events, read in pieces of many lines, since a busy container writes thousands a second.
import { Refused, url } from "./api.js";

const MOST = 100_000;
const PART = 2_000;
const AGAIN = 1_000; // ms until a lost connection is tried again

export class Lines {
  /** `parameters` are those of GET logs; `changed(how)` is called at most once a frame, with {added, before, dropped}. */
  constructor(parameters, changed) {
    Object.assign(this, { parameters, changed, rows: [], ended: false, error: null, first: false, last: "" });
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

  append(rows) {
    for (const row of rows) this.rows.push(row);
    this.news.added += rows.length;
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
    try {
      const [{ at }] = this.rows;
      await this.read({ ...this.parameters, until: at, tail: PART }, (rows) => found.push(...rows));
      const known = new Set(this.rows.slice(0, PART).map(({ id }) => id));
      const fresh = found.filter((row) => row.at < at || !known.has(row.id));
      if (found.length < PART) this.first = true;
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
    const response = await fetch(url("logs", parameters), { headers, signal: this.stop.signal });
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
      if (event === "error" && data) this.error = new Refused(0, JSON.parse(data).error ?? JSON.parse(data));
      if (event && event !== "line" && event !== "message") continue;
      if (!data) continue;
      if (live && id) this.last = id;
      rows.push({ id, ...JSON.parse(data) });
    }
    return rows;
  }
}

function fields(part) {
  const found = {};
  for (const line of part.split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) found[line.slice(0, colon)] = line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
  }
  return found;
}
