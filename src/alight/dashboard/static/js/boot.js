// The first script of the page, and no module: it sets the theme that was chosen before a pixel is drawn, and loads the
// rest. A browser breaks requests off when a network interface of its machine comes or goes, which every container does;
// then the page is loaded once more. (Not inline, because the pages' security policy forbids that.)
(() => {
  const TRIES = 5;
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
    if (tried < TRIES && note(tried + 1)) setTimeout(() => location.reload(), 300);
    else throw error;
  };
  addEventListener("error", ({ target }) => target instanceof HTMLLinkElement && again(new Error(`no ${target.href}`)), true);
  import("/static/js/main.js").then(() => note(0), again);
})();
