// Copying: of a command, of the text for a bug report, of the diagnosis as JSON.
(() => {
  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // A page from a file may not use the clipboard by itself; a selection may be copied.
      const area = make("textarea", { readonly: "", class: "hidden" });
      area.value = text;
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy], [data-copy-from], [data-copy-json]");
    if (!button) return;
    let text = button.dataset.copy;
    if (button.dataset.copyFrom) text = byId(button.dataset.copyFrom).textContent;
    if (button.dataset.copyJson !== undefined) text = JSON.stringify(await unpack("diagnosis"), null, 2);
    const done = await copy(text);
    const before = button.textContent;
    button.textContent = done ? "Copied" : "Select it by hand";
    button.disabled = true;
    announce(done ? "Copied" : "Copying is not allowed here");
    setTimeout(() => {
      button.textContent = before;
      button.disabled = false;
    }, 1200);
  });
})();
