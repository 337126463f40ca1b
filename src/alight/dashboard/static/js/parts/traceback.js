// An exception with its frames, as Python prints it: the last line first, since that is what one looks for.
import { html, useState } from "../lib/html.js";

export function Traceback({ failure }) {
  const [whole, set] = useState(false);
  const hidden = frames(failure).some(({ user }) => user === false);
  return html`
    <div class="traceback">
      <${One} failure=${failure} whole=${whole} />
      ${hidden && html`<button type="button" class="quiet" onClick=${() => set(!whole)}>${whole ? "Hide Alight's own frames" : "Show Alight's own frames"}</button>`}
    </div>`;
}

const frames = (failure) => (failure ? [...failure.frames, ...frames(failure.cause)] : []);

const One = ({ failure, whole }) => html`
  <p class="raised"><strong>${failure.type.replace(/^builtins\./, "")}</strong>${failure.message && html`<span class="message">: ${failure.message}</span>`}</p>
  ${failure.notes?.map((note, at) => html`<p key=${at} class="message">${note}</p>`)}
  <ol class="frames">${failure.frames.filter(({ user }) => whole || user !== false).map(({ file, line, name, text }, at) => html`
    <li key=${at}><span class="where"><span class="cut">${file}</span>:${line} <span class="faint">in ${name}</span></span>${text && html`<code>${text}</code>`}</li>`)}</ol>
  ${failure.cause && html`<p class="faint">${failure.context_suppressed ? "It was raised because of" : "It came up while this was handled"}:</p><${One} failure=${failure.cause} whole=${whole} />`}`;
