// Questions before something is changed, and what became of it. The browser's own <dialog> keeps the focus inside and
// gives it back; Esc says no.
import { post } from "../lib/api.js";
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { Problem } from "./basics.js";

const host = { ask: () => {}, say: () => {} };

/**
 * A button that asks first. `path` and `body` are the POST; `fields` ([{name, label, value, hint, kind, options}]) are what
 * the dialog asks for: numbers ("" is null), which may have fractions with `step` "any", or one of `options`
 * ([[value, text]]), or with `kind` "check" yes or no. Of them what was changed is sent, or `all`. `verb` is the word that
 * does it, where the button's own is not. `then(answer)` is called when it was done.
 */
export const Action = ({ label, verb = label, title, text, path, body = {}, fields = [], all = false, danger = false, then, quiet = false }) => html`
  <button type="button" class=${quiet ? "quiet" : danger ? "danger" : undefined}
    onClick=${() => host.ask({ label: verb, title, text, path, body, fields, all, danger, then })}>${label}</button>`;

/** Says that something was done, at the edge of the page, for some seconds. */
export const say = (text) => host.say(text);

/** Where questions and notices are drawn: once, in the shell. */
export function Dialogs() {
  const [question, ask] = useState(null);
  const [notice, setNotice] = useState("");
  useEffect(() => {
    host.ask = ask;
    let timer = null;
    host.say = (text) => {
      clearTimeout(timer);
      setNotice(text);
      timer = setTimeout(() => setNotice(""), 5000);
    };
  }, []);
  return html`
    ${question && html`<${Question} key=${question.path} ...${question} close=${() => ask(null)} />`}
    <div class=${`notice ${notice ? "" : "gone"}`} role="status">${notice}</div>`;
}

function Question({ label, title, text, path, body, fields, all, danger, then, close }) {
  const dialog = useRef(null);
  const [values, set] = useState(Object.fromEntries(fields.map(({ name, value }) => [name, value ?? ""])));
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  useEffect(() => {
    dialog.current.showModal();
  }, []);
  const act = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      const sent = fields.filter(({ name, value }) => all || String(values[name]) !== String(value ?? ""));
      const answer = await post(path, { ...body, ...Object.fromEntries(sent.map((field) => [field.name, said(field, values[field.name])])) });
      dialog.current.close();
      say(answer.done || `${label}: done`);
      then?.(answer);
    } catch (failed) {
      setError(failed);
      setBusy(false);
    }
  };
  return html`
    <dialog ref=${dialog} onClose=${close} aria-labelledby="question">
      <form onSubmit=${act}>
        <h2 id="question">${title}</h2>
        <p>${text}</p>
        ${fields.map((field) => html`<${Field} key=${field.name} of=${field} value=${values[field.name]}
          set=${(value) => set({ ...values, [field.name]: value })} />`)}
        ${error && html`<${Problem} error=${error} />`}
        <div class="buttons">
          <button type="button" onClick=${() => dialog.current.close()}>${danger ? "Keep it" : "Cancel"}</button>
          <button type="submit" class=${danger ? "danger" : "main"} disabled=${busy}>${label}</button>
        </div>
      </form>
    </dialog>`;
}

/** What a field's value is in the request. */
function said({ kind, options }, value) {
  if (kind === "check") return Boolean(value);
  return options ? value : value === "" ? null : Number(value);
}

function Field({ of, value, set }) {
  const { label, hint, kind, options, min = 0, step = "1" } = of;
  const words = html`<span>${label}${hint && html`<small>${hint}</small>`}</span>`;
  if (kind === "check")
    return html`<label class="field check"><input type="checkbox" checked=${Boolean(value)} onChange=${(event) => set(event.target.checked)} />${words}</label>`;
  return html`<label class="field">${words}${options
    ? html`<select value=${value} onChange=${(event) => set(event.target.value)}>${options.map(([name, text]) => html`<option key=${name} value=${name}>${text}</option>`)}</select>`
    : html`<input type="number" min=${min} step=${step} value=${value} onInput=${(event) => set(event.target.value)} />`}</label>`;
}
