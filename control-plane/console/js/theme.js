// Applies the chosen theme before the first paint, hence no module. The choice is the only thing the console keeps in
// the browser for longer than a sign-in takes (signin.js).
(() => {
  const KEY = "bouncer.theme";
  const read = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null;
    }
  };
  const apply = (theme) => {
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
    else delete document.documentElement.dataset.theme;
  };
  apply(read());
  window.bouncerTheme = {
    /** What was chosen: "light", "dark" or "system". */
    get: () => document.documentElement.dataset.theme ?? "system",
    set: (theme) => {
      apply(theme);
      try {
        if (theme === "system") localStorage.removeItem(KEY);
        else localStorage.setItem(KEY, theme);
      } catch {
        // Private windows may have no storage; the choice then lasts for this page.
      }
    },
  };
})();
