// A register, wherever it stands, lights up everywhere.
(() => {
  const named = [...document.querySelectorAll("[data-register]")];
  const light = (name) => {
    for (const element of named) element.classList.toggle("lit", name !== null && element.dataset.register === name);
  };
  const section = byId("code");
  if (!section) return;
  section.addEventListener("pointerover", (event) => {
    const element = event.target.closest("[data-register]");
    light(element ? element.dataset.register : null);
  });
  section.addEventListener("pointerleave", () => light(null));
  for (const element of named) {
    const value = document.querySelector(`li[data-register="${CSS.escape(element.dataset.register)}"]`);
    if (element.tagName === "SPAN" && value) {
      element.title = [...value.children].slice(1).map((child) => child.textContent).filter(Boolean).join(": ");
    }
  }
})();
