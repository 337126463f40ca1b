// For a browser that the server does not know: how to get a link, and a field for a token.
import { post } from "../lib/api.js";
import { html, useEffect, useState } from "../lib/html.js";
import { Command, Problem } from "../parts/basics.js";

export function Login() {
  const [token, set] = useState("");
  const [error, setError] = useState(null);
  useEffect(() => {
    document.title = "Log in · Alight";
  }, []);
  const enter = async (event) => {
    event.preventDefault();
    try {
      await post("login", { token: token.trim() });
      if (location.pathname === "/login") location.assign("/");
      else location.reload();
    } catch (refused) {
      setError(refused);
    }
  };
  return html`<main class="alone"><div class="card">
    <h1><img src="/static/icon.svg" alt="" width="24" height="24" /> Alight</h1>
    ${new URLSearchParams(location.search).has("used") && html`<div class="note wait"><strong>This link was used before, or is older than a minute.</strong></div>`}
    <p>On the machine itself, this prints a link that logs you in. It works once, for a minute:</p>
    <${Command} text="alight dashboard" />
    <form onSubmit=${enter}>
      <label class="field"><span>Or with a token</span>
        <input type="password" value=${token} autocomplete="current-password" placeholder="ak-…:as-…"
          onInput=${(event) => set(event.target.value)} /></label>
      ${error && html`<${Problem} error=${error} />`}
      <div class="buttons"><button type="submit" class="main" disabled=${!token.trim()}>Log in</button></div>
    </form></div></main>`;
}
