// Questions before something is changed, and what became of it. The browser's own <dialog> keeps the focus inside and
// gives it back; Esc says no.
import { post } from "../lib/api.js";
import { html, useEffect, useRef, useState } from "../lib/html.js";
import { Problem } from "./basics.js";

const host = { ask: () => {}, say: () => {} };

/**
 * A button that asks first. `path` and `body` are the POST; `fields` ([{name, label, value, hint}]) are numbers that the
 * dialog asks for ("" is null). `then(answer)` is called when it was done.
 */
export const Action = ({ label, title, text, path, body = {}, fields = [], danger = false, then, quiet = false }) => html`
  <button type="button" class=${quiet ? "quiet" : danger ? "danger" : undefined}
    onClick=${() => host.ask({ label, title, text, path, body, fields, danger, then })}>${label}</button>`;

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

function Question({ label, title, text, path, body, fields, danger, then, close }) {
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
      const changed = fields.filter(({ name, value }) => String(values[name]) !== String(value ?? ""));
      const numbers = changed.map(({ name }) => [name, values[name] === "" ? null : Number(values[name])]);
      const answer = await post(path, { ...body, ...Object.fromEntries(numbers) });
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
        ${fields.map(({ name, label: words, hint, min = 0 }) => html`
          <label key=${name} class="field"><span>${words}${hint && html`<small>${hint}</small>`}</span>
            <input type="number" min=${min} step="1" value=${values[name]} onInput=${(event) => set({ ...values, [name]: event.target.value })} />
          </label>`)}
        ${error && html`<${Problem} error=${error} />`}
        <div class="buttons">
          <button type="button" onClick=${() => dialog.current.close()}>${danger ? "Keep it" : "Cancel"}</button>
          <button type="submit" class=${danger ? "danger" : "main"} disabled=${busy}>${label}</button>
        </div>
      </form>
    </dialog>`;
}
