// Before the first paint: a page that changes its colours afterwards flashes.
(() => {
  try {
    const kept = localStorage.getItem("emulator-colours");
    if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
  } catch {
    // A browser that keeps nothing shows the colours of the system.
  }
})();
