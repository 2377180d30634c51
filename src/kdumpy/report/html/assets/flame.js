// The flame graph: all stacks laid on each other, outermost call at the top.
function startFlame(data) {
  const view = byId("flame-view");
  if (!view) return;
  const ROW = 20, LETTER = 7.1, NARROWEST = 1;
  const search = byId("flame-search"), group = byId("flame-group"), state = byId("flame-state");
  let root = null, shown = null, last = null;

  const groupName = {
    state: (task) => `${task[data.STATE]}: ${data.states[task[data.STATE]] || "unknown"}`,
    comm: (task) => task[data.COMM].replace(/[\d:/]+$/, ""),
    kind: (task) => (task[data.FLAGS] & 2 ? "kernel threads" : "processes"),
  };

  function grow() {
    root = { name: "all tasks", kind: "f-group", count: 0, children: new Map(), parent: null, tasks: [] };
    for (const task of data.tasks) {
      if (task[data.STACK] === null || (state.value && task[data.STATE] !== state.value)) continue;
      const frames = data.stacks[task[data.STACK]].map((place) => [data.frames[place], kindOf(data.frames[place])]);
      if (group.value) frames.push([groupName[group.value](task), "f-group"]);
      let node = root;
      node.count += 1;
      for (const [name, kind] of frames.reverse()) {
        let child = node.children.get(name);
        if (!child) {
          child = { name, kind, count: 0, children: new Map(), parent: node, tasks: [] };
          node.children.set(name, child);
        }
        child.count += 1;
        node = child;
      }
      node.tasks.push(task);
    }
    const sort = (node) => {
      node.sorted = [...node.children.values()].sort((a, b) => b.count - a.count || (a.name < b.name ? -1 : 1));
      node.sorted.forEach(sort);
    };
    sort(root);
    shown = root;
  }

  function kindOf(name) {
    if (data.culprit && data.culprit.module && name === `${data.culprit.function} [${data.culprit.module}]`) return "f-culprit";
    if (data.culprit && !data.culprit.module && name === data.culprit.function) return "f-culprit";
    if (name.endsWith("]")) return "f-module";
    let sum = 0;
    for (const letter of name) sum = (sum * 31 + letter.charCodeAt(0)) % 9973;
    return `f${sum % 5}`;
  }

  function render() {
    const width = Math.max(280, view.clientWidth), wanted = search.value.trim().toLowerCase();
    const path = [];
    for (let node = shown; node; node = node.parent) path.unshift(node);
    const svg = draw("svg", { width, role: "group", "aria-label": "Flame graph of all stacks" });
    let deepest = 0;
    const put = (node, x, wide, level, above) => {
      deepest = Math.max(deepest, level);
      const box = draw("g", { class: `node ${node.kind}${above ? " above" : ""}`, tabindex: "-1", role: "button" });
      box.setAttribute("aria-label", `${node.name}, ${words(node.count, "task")}`);
      if (wanted && node.name.toLowerCase().includes(wanted)) box.classList.add("hit");
      box.append(draw("rect", { x: x.toFixed(1), y: level * ROW, width: Math.max(wide, NARROWEST).toFixed(1), height: ROW - 1, rx: 2 }));
      const room = Math.floor((wide - 8) / LETTER);
      if (room >= 3) {
        const text = draw("text", { x: (x + 4).toFixed(1), y: level * ROW + 13.5 });
        text.textContent = node.name.length > room ? `${node.name.slice(0, room - 1)}…` : node.name;
        box.append(text);
      }
      node.box = box;
      box.node = node;
      svg.append(box);
    };
    const lay = (node, x, wide, level) => {
      put(node, x, wide, level, false);
      let left = x;
      for (const child of node.sorted) {
        const part = wide * child.count / node.count;
        if (part >= NARROWEST) lay(child, left, part, level + 1);
        else child.box = null;
        left += part;
      }
    };
    path.slice(0, -1).forEach((node, level) => put(node, 0, width, level, true));
    if (shown.count) lay(shown, 0, width, path.length - 1);
    svg.setAttribute("height", (deepest + 1) * ROW);
    svg.setAttribute("viewBox", `0 0 ${width} ${(deepest + 1) * ROW}`);
    svg.classList.toggle("searching", Boolean(wanted));
    view.replaceChildren(svg);
    if (shown.box) shown.box.setAttribute("tabindex", "0");
    tell(shown, wanted);
  }

  function under(node, wanted) {
    // Tasks with a matching call, each once.
    if (node.name.toLowerCase().includes(wanted)) return node.count;
    return node.sorted.reduce((sum, child) => sum + under(child, wanted), 0);
  }

  function tell(node, wanted) {
    const share = root.count ? `${(100 * node.count / root.count).toFixed(1)} %` : "";
    let told = node === root ? `${words(root.count, "task")}, ${words(data.stacks.length, "different stack")}.` :
      `${node.name}: ${words(node.count, "task")} of ${root.count.toLocaleString("en")} (${share}).`;
    if (wanted) {
      const found = under(shown, wanted);
      told += ` ${found ? words(found, "task") : "No task"} in a call that matches “${wanted}”.`;
    }
    byId("flame-status").textContent = told;
  }

  function select(node) {
    shown = node;
    render();
    const list = byId("flame-tasks");
    list.replaceChildren();
    if (node !== root) {
      const tasks = [];
      const gather = (item) => {
        tasks.push(...item.tasks);
        item.sorted.forEach(gather);
      };
      gather(node);
      const names = tasks.slice(0, 40).map((task) => `${task[data.COMM]} (${task[data.PID]})`);
      list.append(names.join(", ") + (tasks.length > 40 ? ` and ${tasks.length - 40} more. ` : ". "));
      const button = make("button", { type: "button" }, "Show them in the table");
      button.addEventListener("click", () => {
        data.showTasks(new Set(tasks.map((task) => task[data.PID])), node.name);
      });
      list.append(button);
    }
    if (node.box) node.box.focus({ preventScroll: true });
  }

  const nodeOf = (event) => {
    const box = event.target.closest(".node");
    return box ? box.node : null;
  };
  view.addEventListener("click", (event) => {
    const node = nodeOf(event);
    if (node) select(node);
  });
  view.addEventListener("pointerover", (event) => {
    const node = nodeOf(event);
    if (node && node !== last) tell(last = node, search.value.trim().toLowerCase());
  });
  view.addEventListener("pointerleave", () => { last = null; tell(shown, search.value.trim().toLowerCase()); });
  view.addEventListener("keydown", (event) => {
    const node = nodeOf(event);
    if (!node) return;
    const siblings = node.parent ? node.parent.sorted.filter((item) => item.box) : [node];
    const place = siblings.indexOf(node);
    const next = {
      ArrowUp: node.parent, ArrowDown: node.sorted.find((item) => item.box),
      ArrowLeft: siblings[place - 1], ArrowRight: siblings[place + 1],
    }[event.key];
    if (event.key === "Enter" || event.key === " ") select(node);
    else if (event.key === "Escape") select(root);
    else if (next && next.box) {
      next.box.focus({ preventScroll: true });
      tell(next, search.value.trim().toLowerCase());
    } else if (!event.key.startsWith("Arrow")) return;
    event.preventDefault();
  });
  const again = () => { grow(); byId("flame-tasks").replaceChildren(); render(); };
  group.addEventListener("change", again);
  state.addEventListener("change", again);
  search.addEventListener("input", calmly(render));
  byId("flame-reset").addEventListener("click", () => {
    search.value = "";
    select(root);
  });
  let width = 0;
  new ResizeObserver(() => {
    if (view.clientWidth !== width) {
      width = view.clientWidth;
      render();
    }
  }).observe(view);
  grow();
}
