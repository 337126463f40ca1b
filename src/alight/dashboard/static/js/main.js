// The dashboard: who is looking, then the page that the path names.
import { loadMe, me, whenLoggedOut } from "./lib/api.js";
import { connect, disconnect } from "./lib/events.js";
import { html, render, useEffect, useState } from "./lib/html.js";
import { followLinks, useLocation } from "./lib/router.js";
import { Problem } from "./parts/basics.js";
import { Frame } from "./parts/shell.js";
import { App } from "./pages/app.js";
import { Apps } from "./pages/apps.js";
import { Audit } from "./pages/audit.js";
import { Call } from "./pages/call.js";
import { Calls } from "./pages/calls.js";
import { Container } from "./pages/container.js";
import { Containers } from "./pages/containers.js";
import { Cost } from "./pages/cost.js";
import { Function } from "./pages/function.js";
import { Images } from "./pages/images.js";
import { Login } from "./pages/login.js";
import { Machine } from "./pages/machine.js";
import { Machines } from "./pages/machines.js";
import { Schedules } from "./pages/schedules.js";
import { Secrets } from "./pages/secrets.js";
import { Volume } from "./pages/volume.js";
import { Volumes } from "./pages/volumes.js";

const LISTS = {
  "": Apps, apps: Apps, calls: Calls, containers: Containers, schedules: Schedules, machines: Machines, volumes: Volumes,
  secrets: Secrets, images: Images, cost: Cost, audit: Audit,
};
const SINGLE = { apps: App, functions: Function, calls: Call, containers: Container, volumes: Volume, machines: Machine };

function Page({ path }) {
  const [, kind, id, ...rest] = path.split("/");
  const Found = rest.length ? null : id ? SINGLE[kind] : LISTS[kind];
  if (!Found) return html`<${Nowhere} path=${path} />`;
  return html`<${Found} key=${`${kind}/${id ?? ""}`} id=${id && decodeURIComponent(id)} />`;
}

const Nowhere = ({ path }) => html`<div class="empty"><h1>Not found</h1>
  <p>There is no page ${path}.</p><p><a href="/">All apps</a></p></div>`;

function Root() {
  const { path } = useLocation();
  const [state, set] = useState({ ready: false, error: null });
  const look = async () => {
    try {
      await loadMe();
      if (me()) connect();
      set({ ready: true, error: null });
    } catch (error) {
      set({ ready: true, error });
      setTimeout(look, 2000);
    }
  };
  useEffect(() => {
    whenLoggedOut(() => {
      disconnect();
      look();
    });
    look();
  }, []);
  if (!state.ready) return null;
  if (state.error) return html`<div class="alone"><${Problem} error=${state.error} retry=${look} /></div>`;
  if (!me()) return html`<${Login} />`;
  return html`<${Frame} path=${path}><${Page} path=${path} /><//>`;
}

followLinks();
render(html`<${Root} />`, document.body);
