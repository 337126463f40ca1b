// The first script of the page, and no module: it sets the theme that was chosen before a pixel is drawn, and loads the
// rest. Chromium was seen to break requests off (ERR_NETWORK_CHANGED) while containers of its own machine start; then the
// page is loaded once more. (Not inline, because the pages' security policy forbids that.)
(() => {
  const TRIES = 40;
  const remembered = (store, name) => {
    try {
      return window[store].getItem(name);
    } catch {
      return null; // a browser that keeps nothing
    }
  };
  const chosen = remembered("localStorage", "alight.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;

  const tried = Number(remembered("sessionStorage", "alight.tries")) || 0;
  const note = (number) => {
    try {
      sessionStorage.setItem("alight.tries", String(number));
      return true;
    } catch {
      return false;
    }
  };
  const again = (error) => {
    if (document.body && tried > 2) document.body.textContent = "The browser broke off the loading of this page. It is loaded again.";
    if (tried < TRIES && note(tried + 1)) setTimeout(() => location.reload(), Math.min(3000, 200 * 2 ** tried));
    else throw error;
  };
  addEventListener("error", ({ target }) => target instanceof HTMLLinkElement && again(new Error(`no ${target.href}`)), true);
  import("/static/js/main.js").then(() => note(0), again);
})();
