// Sets the theme before the first paint. Loaded as a classic script in the head, so that a chosen
// theme never flashes. Without a choice the style sheet follows the system.
(() => {
  const CHOICES = ["light", "dark"];
  let chosen = null;
  try {
    chosen = localStorage.getItem("freshet.theme");
  } catch {
    // Storage may be refused; then the system decides.
  }
  if (CHOICES.includes(chosen)) document.documentElement.dataset.theme = chosen;
})();
