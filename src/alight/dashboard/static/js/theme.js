// Sets the theme that was chosen before the first pixel is drawn; main.js comes later.
// It is a script of its own because the pages' security policy forbids inline ones.
(() => {
  try {
    const chosen = localStorage.getItem("alight.theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // a browser that keeps nothing follows the system's theme
  }
})();
