"use strict";
// Helpers, the choice of colours, printing, and the mark in the list of sections. Text from the dump only ever
// goes through textContent; the page's policy forbids anything that would parse it.
document.documentElement.classList.add("js");

const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

function draw(name, attributes = {}) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function announce(words) {
  byId("announce").textContent = words;
}

// Wait until typing pauses: a search over thousands of rows runs once, not at every key.
function calmly(action, wait = 120) {
  let timer = 0;
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(later.now, wait);
  };
  // What waits is done at once: before anything that builds on it.
  later.now = () => {
    if (!timer) return;
    clearTimeout(timer);
    timer = 0;
    action();
  };
  return later;
}

function words(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

(() => {
  const buttons = [...document.querySelectorAll("[data-theme-choice]")];
  const choose = (choice) => {
    if (choice === "auto") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.setAttribute("data-theme", choice);
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.themeChoice === choice));
  };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      choose(button.dataset.themeChoice);
      // Some browsers keep nothing for a file.
      try { localStorage.setItem("kdumpy-theme", button.dataset.themeChoice); } catch { /* then not */ }
    });
  }
  let kept = null;
  try { kept = localStorage.getItem("kdumpy-theme"); } catch { /* then not */ }
  if (kept === "light" || kept === "dark") choose(kept);
})();

(() => {
  byId("print").addEventListener("click", () => window.print());
  const opened = [];
  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details.open-in-print:not([open])")) {
      details.open = true;
      opened.push(details);
    }
  });
  window.addEventListener("afterprint", () => {
    for (const details of opened.splice(0)) details.open = false;
  });
  for (const form of document.querySelectorAll("form")) {
    form.addEventListener("submit", (event) => event.preventDefault());
  }
})();

(() => {
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const seen = new Set();
  const watch = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) seen.add(entry.target.id);
      else seen.delete(entry.target.id);
    }
    const first = [...links.keys()].find((id) => seen.has(id));
    for (const [id, link] of links) {
      if (id === first) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }, { rootMargin: "-120px 0px -55% 0px" });
  for (const id of links.keys()) {
    if (byId(id)) watch.observe(byId(id));
  }
})();
