// The table of tasks: sorted by its headings, searched, filtered; a row unfolds to the stack.
function startTasks(data) {
  const table = byId("task-table");
  if (!table) return;
  const PAGE = 100;
  const search = byId("task-search"), state = byId("task-state"), kind = byId("task-kind");
  const body = table.tBodies[0];
  let order = { column: null, down: false }, shown = PAGE, only = null;
  // A blocked task first, then what ran, then the rest; within, as the kernel lists them.
  const weight = { D: 0, R: 1 };

  const stackOf = (task) => (task[data.STACK] === null ? [] : data.stacks[task[data.STACK]].map((place) => data.frames[place]));
  const whereOf = (task) => (task[data.STACK] === null ? "" : data.frames[data.where[task[data.STACK]]]);
  const size = (bytes) => {
    if (bytes === null) return "";
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let value = bytes, unit = 0;
    while (value >= 1024 && unit < 4) {
      value /= 1024;
      unit += 1;
    }
    return `${unit ? value.toFixed(1) : value} ${units[unit]}`;
  };
  const duration = (seconds) => {
    if (seconds === null) return "";
    if (seconds < 100) return `${seconds.toFixed(1)} s`;
    if (seconds < 6000) return `${(seconds / 60).toFixed(0)} min`;
    return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(1)} d`;
  };
  const columns = [
    { title: "PID", number: true, key: (task) => task[data.PID], text: (task) => String(task[data.PID]) },
    { title: "Name", key: (task) => task[data.COMM].toLowerCase(), text: (task) => task[data.COMM] },
    { title: "State", key: (task) => task[data.STATE], text: (task) => task[data.STATE] },
    { title: "CPU", number: true, key: (task) => task[data.CPU], text: (task) => `${task[data.CPU]}${task[data.FLAGS] & 1 ? " ●" : ""}` },
    { title: "Memory", number: true, key: (task) => task[data.RSS], text: (task) => size(task[data.RSS]) },
    { title: "Last ran", number: true, key: (task) => task[data.IDLE], text: (task) => (task[data.FLAGS] & 1 ? "now" : task[data.IDLE] === null ? "" : `${duration(task[data.IDLE])} ago`) },
    { title: "Parent", number: true, key: (task) => task[data.PARENT], text: (task) => String(task[data.PARENT]) },
    { title: "In", key: (task) => whereOf(task).toLowerCase(), text: whereOf },
  ];

  const headings = columns.map((column, place) => {
    const heading = make("th", { scope: "col", class: column.number ? "number" : null });
    const button = make("button", { type: "button" }, column.title);
    button.addEventListener("click", () => {
      order = { column: place, down: order.column === place ? !order.down : place === 4 || place === 5 };
      headings.forEach((other, number) => {
        if (number === place) other.setAttribute("aria-sort", order.down ? "descending" : "ascending");
        else other.removeAttribute("aria-sort");
      });
      render();
      announce(`Sorted by ${column.title}, ${order.down ? "descending" : "ascending"}`);
    });
    heading.append(button);
    return heading;
  });
  table.tHead.rows[0].append(...headings);

  // What a search looks through, made once.
  const haystack = data.tasks.map((task) => `${task[data.PID]} ${task[data.COMM]} ${stackOf(task).join(" ")}`.toLowerCase());

  function rows() {
    const wanted = search.value.trim().toLowerCase();
    const found = [];
    data.tasks.forEach((task, number) => {
      const flags = task[data.FLAGS];
      if (state.value && task[data.STATE] !== state.value) return;
      if (kind.value && !{ process: !(flags & 2), kernel: flags & 2, cpu: flags & 1 }[kind.value]) return;
      if (only && !only.pids.has(task[data.PID])) return;
      if (!wanted || haystack[number].includes(wanted)) found.push(task);
    });
    if (order.column === null) {
      found.sort((a, b) => (b[data.FLAGS] & 4) - (a[data.FLAGS] & 4)
        || (weight[a[data.STATE]] ?? 2) - (weight[b[data.STATE]] ?? 2));
    } else {
      const { key } = columns[order.column], sign = order.down ? -1 : 1;
      // What is unknown comes last, whichever way it is sorted.
      found.sort((a, b) => {
        const left = key(a), right = key(b);
        if (left === null || right === null) return (left === null) - (right === null);
        return left < right ? -sign : left > right ? sign : a[data.PID] - b[data.PID];
      });
    }
    return found;
  }

  function rowOf(task) {
    const row = make("tr", { class: task[data.FLAGS] & 4 ? "panicked" : null });
    columns.forEach((column, place) => {
      const cell = make("td", { class: column.number ? "number" : place === 2 ? `s-${task[data.STATE]}` : place === 7 ? "path" : null });
      if (place === 1) {
        const button = make("button", { type: "button", class: "open", "aria-expanded": "false" }, column.text(task));
        button.addEventListener("click", () => unfold(row, button, task));
        cell.append(button);
      } else {
        cell.textContent = column.text(task);
        if (place === 2) cell.title = data.states[task[data.STATE]] || "";
      }
      row.append(cell);
    });
    return row;
  }

  function unfold(row, button, task) {
    if (button.getAttribute("aria-expanded") === "true") {
      button.setAttribute("aria-expanded", "false");
      row.nextSibling.remove();
      return;
    }
    button.setAttribute("aria-expanded", "true");
    const frames = stackOf(task);
    const list = make("ol", { class: "stack" }, ...(frames.length ? frames : ["no stack in the kernel"]).map((name) => make("li", {}, name)));
    const cell = make("td", { colspan: columns.length }, list);
    row.after(make("tr", { class: "unfolded" }, cell));
  }

  function render() {
    const found = rows();
    body.replaceChildren(...found.slice(0, shown).map(rowOf));
    const count = Math.min(shown, found.length);
    byId("task-status").textContent = (only ? `In ${only.name}: ` : "")
      + (count < found.length ? `${count.toLocaleString("en")} of ${words(found.length, "task")}` : words(found.length, "task"))
      + (found.length < data.tasks.length ? ` (${data.tasks.length.toLocaleString("en")} in all)` : "");
    byId("task-more").hidden = count === found.length;
    byId("task-more").textContent = `Show ${Math.min(500, found.length - count)} more`;
  }

  const again = () => {
    shown = PAGE;
    render();
  };
  search.addEventListener("input", calmly(() => { only = null; again(); }));
  state.addEventListener("change", () => { only = null; again(); });
  kind.addEventListener("change", () => { only = null; again(); });
  byId("task-more").addEventListener("click", () => {
    shown += 500;
    render();
  });
  data.showTasks = (pids, name) => {
    search.value = state.value = kind.value = "";
    only = { pids, name };
    again();
    byId("tasks").scrollIntoView();
  };
  render();
}
