// A shell in a container. The terminal library writes <style> elements, which the pages' security policy forbids; its
// copy here writes <noscript> elements instead (see vendor.toml), and their rules are put into a sheet of the page.
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
  const terminal = new Terminal({
    cursorBlink: true, fontFamily: of("--mono"), fontSize: 13, scrollback: 5000,
    theme: palette(of),
  });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  terminal.open(place);
  const endStyles = mirrorStyles(place);
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
    endStyles();
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

/** Keeps a sheet of the page with the rules that the terminal writes into its <noscript> elements. Returns its end. */
function mirrorStyles(place) {
  const sheet = new CSSStyleSheet();
  const copy = () => sheet.replaceSync([...place.querySelectorAll("noscript")].map(({ textContent }) => textContent).join("\n"));
  const observer = new MutationObserver((changes) => {
    if (changes.some(({ target, addedNodes }) => carries(target) || [...addedNodes].some(carries))) copy();
  });
  observer.observe(place, { subtree: true, childList: true, characterData: true });
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  copy();
  return () => {
    observer.disconnect();
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((one) => one !== sheet);
  };
}

const carries = ({ nodeName, parentNode }) => nodeName === "NOSCRIPT" || parentNode?.nodeName === "NOSCRIPT";
