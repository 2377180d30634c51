// The log: all lines, searched and filtered; what tells of trouble is marked.
function startLog(data) {
  const view = byId("log-view");
  if (!view || !data.log.length) return;
  const CHUNK = 100, NEAR = 6;
  const search = byId("log-search"), level = byId("log-level");
  const belongs = new Uint8Array(data.log.length), head = new Uint8Array(data.log.length);
  let crash = data.log.length;
  for (const [begin, end, , cause] of data.events) {
    for (let line = begin; line < Math.min(end, data.log.length); line += 1) {
      belongs[line] = Math.max(belongs[line], cause ? 2 : 1);
    }
    head[begin] = 1;
    if (cause) crash = Math.min(crash, begin);
  }
  if (crash === data.log.length && data.events.length) crash = data.events[data.events.length - 1][0];
  let hits = [], place = -1, lines = new Map();

  function stamp(seconds) {
    return seconds === null ? "" : `[${seconds.toFixed(6).padStart(12)}] `;
  }

  // The words to look for: a plain text, or an expression between slashes; null where the expression is wrong.
  function pattern() {
    const text = search.value;
    if (!text) return { find: null };
    const expression = text.match(/^\/(.+)\/?$/);
    try {
      const source = expression ? expression[1].replace(/\/$/, "") : text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
      return { find: new RegExp(source, "gi") };
    } catch {
      return { find: null, wrong: true };
    }
  }

  function chosen(number) {
    const severity = data.log[number][1];
    if (level.value === "events") return belongs[number] > 0;
    if (level.value === "err") return belongs[number] === 2 || (severity >= 0 && severity <= 3);
    if (level.value === "warn") return belongs[number] === 2 || (severity >= 0 && severity <= 4);
    return true;
  }

  function lineOf(number, find) {
    const [seconds, severity, text] = data.log[number];
    const line = make("span", { class: "line" });
    if (severity >= 0 && severity <= 3) line.classList.add("l-err");
    else if (severity === 4) line.classList.add("l-warn");
    if (belongs[number]) line.classList.add(belongs[number] === 2 ? "cause" : "event");
    if (head[number]) line.classList.add("head");
    if (Math.abs(number - crash) <= NEAR) line.classList.add("near");
    const time = stamp(seconds);
    if (time) line.append(make("time", {}, time));
    let from = 0;
    if (find) {
      find.lastIndex = 0;
      for (let match = find.exec(text); match && match[0]; match = find.exec(text)) {
        line.append(text.slice(from, match.index), make("mark", {}, match[0]));
        from = match.index + match[0].length;
      }
      if (from) hits.push(number);
    }
    line.append(`${text.slice(from)}\n`);
    return line;
  }

  function render() {
    const { find, wrong } = pattern();
    const pre = make("pre");
    hits = [];
    place = -1;
    lines = new Map();
    let chunk = null, count = 0;
    for (let number = 0; number < data.log.length; number += 1) {
      if (!chosen(number)) continue;
      if (count % CHUNK === 0) pre.append(chunk = make("div", { class: "chunk" }));
      const line = lineOf(number, find);
      lines.set(number, line);
      chunk.append(line);
      count += 1;
    }
    view.replaceChildren(pre);
    let told = `${words(count, "line")}`;
    if (wrong) told = "The expression is not complete.";
    else if (find) told = hits.length ? `${words(hits.length, "line")} found` : "Nothing found";
    byId("log-status").textContent = told;
    byId("log-next").disabled = byId("log-previous").disabled = !hits.length;
  }

  function show(number, middle = true) {
    const line = lines.get(number);
    if (!line) return;
    for (const other of view.querySelectorAll(".current")) other.classList.remove("current");
    line.classList.add("current");
    // Twice: chunks that were not drawn yet get their true height by the first.
    for (let turn = 0; turn < 2; turn += 1) {
      const top = line.getBoundingClientRect().top - view.getBoundingClientRect().top;
      view.scrollTop += top - (middle ? view.clientHeight / 2 : 40);
    }
  }

  function step(by) {
    if (!hits.length) return;
    place = place < 0 ? (by > 0 ? 0 : hits.length - 1) : (place + by + hits.length) % hits.length;
    show(hits[place]);
    byId("log-status").textContent = `${place + 1} of ${words(hits.length, "line")}`;
  }

  const searched = calmly(() => {
    render();
    if (hits.length) step(1);
  });
  function stepBy(by) {
    searched.now();
    step(by);
  }
  search.addEventListener("input", searched);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") stepBy(event.shiftKey ? -1 : 1);
  });
  level.addEventListener("change", () => {
    searched.now();
    render();
  });
  byId("log-next").addEventListener("click", () => stepBy(1));
  byId("log-previous").addEventListener("click", () => stepBy(-1));
  byId("log-crash").addEventListener("click", () => {
    searched.now();
    if (!lines.has(crash)) {
      level.value = "all";
      render();
    }
    show(crash, false);
  });
  byId("log-crash").disabled = crash === data.log.length;
  for (const column of document.querySelectorAll(".columns-of-log rect")) {
    column.addEventListener("click", () => {
      searched.now();
      if (level.value !== "all") {
        level.value = "all";
        render();
      }
      show(Number(column.dataset.line), false);
    });
  }
  render();
  // At first the reader wants the crash, or else the end.
  const begin = lines.get(crash);
  if (begin) {
    for (let turn = 0; turn < 2; turn += 1) {
      view.scrollTop += begin.getBoundingClientRect().top - view.getBoundingClientRect().top - 60;
    }
  } else view.scrollTop = view.scrollHeight;
}
