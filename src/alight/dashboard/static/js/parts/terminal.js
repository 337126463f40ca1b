// A shell in a container. The terminal library writes <style> elements and style attributes, which the pages' security
// policy forbids; `Strict` gives it a document that turns them into what scripts may do.
import { url } from "../lib/api.js";
import { html, useEffect, useRef, useState } from "../lib/html.js";

export function Shell({ container }) {
  const place = useRef(null);
  const [state, set] = useState("connecting");
  const [round, again] = useState(0);
  useEffect(() => {
    let [alive, end] = [true, () => {}];
    begin({ place: place.current, container, told: (text) => alive && set(text) }).then((close) => {
      end = close;
      if (!alive) close();
    });
    return () => {
      alive = false;
      end();
    };
  }, [container, round]);
  return html`
    <div class="shell">
      <div class="glass" ref=${place}></div>
      <div class="foot"><span>${state}</span>
        ${!["connecting", "connected"].includes(state) && html`
          <button type="button" onClick=${() => (set("connecting"), again(round + 1))}>Connect again</button>`}</div>
    </div>`;
}

async function begin({ place, container, told }) {
  const [{ Terminal }, { FitAddon }] = await Promise.all([
    import("../../vendor/xterm.mjs"),
    import("../../vendor/xterm-fit.mjs"),
    styles("/static/vendor/xterm.css"),
  ]);
  const theme = getComputedStyle(document.documentElement);
  const of = (name) => theme.getPropertyValue(name).trim();
  const strict = new Strict();
  const terminal = new Terminal({
    documentOverride: strict.document, cursorBlink: true, fontFamily: of("--mono"), fontSize: 13, scrollback: 5000,
    theme: palette(of),
  });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  terminal.open(place);
  strict.watch(place);
  fit.fit();
  terminal.focus();
  const address = new URL(url(`containers/${container}/terminal`, { columns: terminal.cols, rows: terminal.rows }), location);
  address.protocol = address.protocol.replace("http", "ws");
  const socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  let why = "";
  socket.onopen = () => told("connected");
  socket.onmessage = ({ data }) => {
    if (typeof data !== "string") terminal.write(new Uint8Array(data));
    else why = said(JSON.parse(data));
  };
  socket.onclose = () => told(why || "the connection was lost");
  const send = (data) => socket.readyState === WebSocket.OPEN && socket.send(data);
  const bytes = new TextEncoder();
  terminal.onData((data) => send(bytes.encode(data)));
  terminal.onBinary((data) => send(Uint8Array.from(data, (character) => character.charCodeAt(0))));
  terminal.onResize(({ cols, rows }) => send(JSON.stringify({ size: [cols, rows] })));
  const observer = new ResizeObserver(() => fit.fit());
  observer.observe(place);
  return () => {
    observer.disconnect();
    socket.close();
    terminal.dispose();
    strict.end();
  };
}

const said = ({ ended, text }) => text || (ended === undefined ? "" : `ended with exit code ${ended}`);

function palette(of) {
  const names = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];
  const found = { background: of("--log"), foreground: of("--text"), cursor: of("--accent"), cursorAccent: of("--log") };
  found.selectionBackground = of("--chosen");
  names.forEach((name, at) => {
    found[name] = of(`--ansi-${at}`);
    found[`bright${name[0].toUpperCase()}${name.slice(1)}`] = of(`--ansi-${at + 8}`);
  });
  return found;
}

function styles(href) {
  if (document.querySelector(`link[href="${href}"]`)) return Promise.resolve();
  return new Promise((then) => {
    const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href, onload: then, onerror: then });
    document.head.append(link);
  });
}

class Strict {
  constructor() {
    this.sheets = new Map();
    this.document = new Proxy(document, {
      get: (page, name) => {
        if (name === "createElement") return (kind) => this.make(kind);
        const value = page[name];
        return typeof value === "function" ? value.bind(page) : value;
      },
    });
  }

  /** A <noscript> carries the text of a <style> without being one; its rules go into a sheet of the page. */
  make(kind) {
    if (kind === "style") {
      const carrier = document.createElement("noscript");
      const sheet = new CSSStyleSheet();
      this.sheets.set(carrier, sheet);
      document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
      return carrier;
    }
    const element = document.createElement(kind);
    const plain = element.setAttribute.bind(element);
    element.setAttribute = (name, value) => {
      if (name === "style") element.style.cssText = value;
      else plain(name, value);
    };
    return element;
  }

  watch(place) {
    const copy = () => {
      for (const [carrier, sheet] of this.sheets) sheet.replaceSync(carrier.textContent);
    };
    this.observer = new MutationObserver((changes) => {
      if (changes.some(({ target }) => this.sheets.has(target) || this.sheets.has(target.parentNode))) copy();
    });
    this.observer.observe(place, { subtree: true, childList: true, characterData: true });
    copy();
  }

  end() {
    this.observer?.disconnect();
    const mine = new Set(this.sheets.values());
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((sheet) => !mine.has(sheet));
  }
}
