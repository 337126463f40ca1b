// All containers, of all apps.
import { html, useState } from "../lib/html.js";
import { useLocation } from "../lib/router.js";
import { Choice, Filter, Head } from "../parts/basics.js";
import { ContainerList } from "../parts/lists.js";

export function Containers() {
  const { query, set } = useLocation();
  const [text, setText] = useState("");
  const all = query.show === "all";
  return html`
    <${Head} title="Containers" />
    <div class="tools"><${Filter} value=${text} set=${setText} label="Filter containers" />
      <${Choice} label="Which containers" value=${all ? "all" : ""} set=${(value) => set({ show: value })}
        options=${[["", "Living"], ["all", "All"]]} /></div>
    <${ContainerList} key=${all} parameters=${{ all }} text=${text} command="alight run hello.py" />`;
}
