// All calls, of all apps.
import { html, useState } from "../lib/html.js";
import { useLocation } from "../lib/router.js";
import { Choice, Filter, Head } from "../parts/basics.js";
import { CallList } from "../parts/lists.js";

export function Calls() {
  const { query, set } = useLocation();
  const [text, setText] = useState("");
  const state = query.state ?? "";
  return html`
    <${Head} title="Calls" />
    <div class="tools"><${Filter} value=${text} set=${setText} label="Filter calls" />
      <${Choice} label="State" value=${state} set=${(value) => set({ state: value })}
        options=${[["", "All"], ["waiting", "Waiting"], ["running", "Running"], ["done", "Done"]]} /></div>
    <${CallList} key=${state} path="calls" parameters=${{ state }} topics=${["calls"]} text=${text} command="alight run hello.py" />`;
}
