(() => {
"use strict";
const root = document.documentElement;
const tip = document.getElementById("tip");
const live = document.getElementById("live");
const SVG = document.querySelector("#theme svg").namespaceURI;
const make = (name, attributes) => {
  const node = document.createElementNS(SVG, name);
  for (const key in attributes) node.setAttribute(key, attributes[key]);
  return node;
};
const element = (name, className, text) => {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};

// Theme: follows the system until the button is pressed; the choice is kept where the browser allows it.
const button = document.getElementById("theme");
const system = matchMedia("(prefers-color-scheme: dark)");
const stored = () => { try { return localStorage.getItem("selftaught-theme"); } catch (e) { return null; } };
const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
const paintButton = () => {
  button.setAttribute("aria-pressed", String(isDark()));
  button.querySelector("span").textContent = isDark() ? "Light" : "Dark";
};
if (["dark", "light"].includes(stored())) root.dataset.theme = stored();
button.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("selftaught-theme", root.dataset.theme); } catch (e) { /* private window */ }
  paintButton();
});
system.addEventListener("change", paintButton);
paintButton();

// One tooltip for the whole page, kept inside the window.
let shownAt = 0;
const showTip = (nodes, x, y) => {
  tip.replaceChildren(...nodes);
  tip.hidden = false;
  shownAt = scrollY;
  const box = tip.getBoundingClientRect();
  const left = x + 16 + box.width > innerWidth - 8 ? x - 16 - box.width : x + 16;
  const top = y + 12 + box.height > innerHeight - 8 ? y - 12 - box.height : y + 12;
  tip.style.left = Math.max(8, Math.min(left, innerWidth - box.width - 8)) + "px";
  tip.style.top = Math.max(8, top) + "px";
};
const hideTip = () => { tip.hidden = true; };
const toScreen = (svg, x, y) => {
  const point = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM());
  return [point.x, point.y];
};
const fromScreen = (svg, event) =>
  new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());

// Line charts: a crosshair at the nearest measured position.
for (const svg of document.querySelectorAll("svg[data-chart]")) {
  const data = JSON.parse(svg.dataset.chart);
  if (!data.points.length) continue;
  const hair = make("path", { class: "hair", "aria-hidden": "true" });
  const dots = data.names.map(([, kind]) => make("circle", { class: "hover " + kind, r: 4.5, visibility: "hidden" }));
  svg.append(hair, ...dots);
  let at = -1;
  const clear = () => {
    at = -1;
    hideTip();
    hair.removeAttribute("d");
    dots.forEach(dot => dot.setAttribute("visibility", "hidden"));
  };
  const go = (index, speak) => {
    at = Math.max(0, Math.min(index, data.points.length - 1));
    const [x, head, rows] = data.points[at];
    hair.setAttribute("d", `M${x} ${data.top}V${data.bottom}`);
    dots.forEach(dot => dot.setAttribute("visibility", "hidden"));
    const nodes = [element("div", "tip-head", head)];
    for (const [k, y, text] of [...rows].sort((a, b) => a[1] - b[1])) {
      dots[k].setAttribute("cx", x);
      dots[k].setAttribute("cy", y);
      dots[k].setAttribute("visibility", "visible");
      const row = element("div", "tip-row");
      row.append(element("i", data.names[k][1]), element("span", "", data.names[k][0]), element("b", "", text));
      nodes.push(row);
    }
    const [sx, sy] = toScreen(svg, x, Math.min(...rows.map(row => row[1])));
    showTip(nodes, sx, sy);
    if (speak) live.textContent = head + ": " + rows.map(([k, , text]) => data.names[k][0] + " " + text).join("; ");
  };
  const nearest = event => {
    const x = fromScreen(svg, event).x;
    let best = 0;
    data.points.forEach((point, i) => { if (Math.abs(point[0] - x) < Math.abs(data.points[best][0] - x)) best = i; });
    go(best, false);
  };
  svg.addEventListener("pointermove", nearest);
  svg.addEventListener("pointerdown", nearest);
  svg.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") clear(); });
  svg.addEventListener("blur", clear);
  svg.addEventListener("keydown", event => {
    const last = data.points.length - 1;
    const to = { ArrowRight: at + 1, ArrowLeft: at < 0 ? last : at - 1, Home: 0, End: last }[event.key];
    if (event.key === "Escape") clear();
    if (to === undefined) return;
    event.preventDefault();
    go(to, true);
  });
}

// The embedding map: the nearest mark to the pointer, or from mark to mark by arrow keys; the legend brings classes forward.
for (const box of document.querySelectorAll("[data-map]")) {
  const id = box.dataset.map.replace(/-data$/, "");
  const data = JSON.parse(document.getElementById(box.dataset.map).textContent);
  const svg = box.querySelector("svg.map");
  const ring = svg.querySelector(".ring");
  const groups = [...svg.querySelectorAll("path.points")];
  const buttons = [...box.querySelectorAll("button[data-class]")];
  const pinned = new Set();
  let at = -1;
  const className = c => c >= 0 ? data.classes[c] : "no label";
  const visible = point => !pinned.size || pinned.has(String(point[2]));
  const emphasise = chosen => groups.forEach(group =>
    group.classList.toggle("faded", chosen.size > 0 && !chosen.has(group.dataset.class)));
  const thumb = index => {
    const picture = element("div", "thumb thumb-" + id);
    const side = 112, columns = data.columns;
    picture.style.backgroundSize = columns * side + "px auto";
    picture.style.backgroundPosition = `${-(index % columns) * side}px ${-Math.floor(index / columns) * side}px`;
    return picture;
  };
  const clear = () => { at = -1; hideTip(); ring.setAttribute("cx", -99); };
  const go = (index, speak) => {
    at = index;
    const [x, y, label, sample] = data.points[index];
    ring.setAttribute("cx", x);
    ring.setAttribute("cy", y);
    const nodes = data.columns ? [thumb(sample)] : [];
    nodes.push(element("div", "tip-head", className(label)));
    if (data.names) nodes.push(element("div", "tip-name", data.names[index]));
    const [sx, sy] = toScreen(svg, x, y);
    showTip(nodes, sx, sy);
    if (speak) live.textContent = className(label) + (data.names ? ", " + data.names[index] : "");
  };
  const nearest = (event, reach) => {
    const p = fromScreen(svg, event);
    const limit = reach / svg.getScreenCTM().a;
    let best = -1, least = limit * limit;
    data.points.forEach((point, i) => {
      const d = (point[0] - p.x) ** 2 + (point[1] - p.y) ** 2;
      if (d < least && visible(point)) { best = i; least = d; }
    });
    if (best < 0) clear(); else if (best !== at || tip.hidden) go(best, false);
  };
  svg.addEventListener("pointermove", event => nearest(event, event.pointerType === "mouse" ? 18 : 30));
  svg.addEventListener("pointerdown", event => nearest(event, event.pointerType === "mouse" ? 18 : 30));
  svg.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") clear(); });
  svg.addEventListener("blur", clear);
  svg.addEventListener("keydown", event => {
    const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (event.key === "Escape") clear();
    if (!way) return;
    event.preventDefault();
    if (at < 0) { go(Math.max(0, data.points.findIndex(visible)), true); return; }
    const [x0, y0] = data.points[at];
    let best = -1, least = Infinity;
    data.points.forEach((point, i) => {
      const dx = point[0] - x0, dy = point[1] - y0;
      const along = dx * way[0] + dy * way[1], across = Math.abs(dx * way[1]) + Math.abs(dy * way[0]);
      if (along > 0.05 && across <= 2 * along && visible(point) && along + 2 * across < least) {
        best = i;
        least = along + 2 * across;
      }
    });
    if (best >= 0) go(best, true);
  });
  for (const entry of buttons) {
    const own = entry.dataset.class;
    const preview = () => { if (!pinned.size) emphasise(new Set([own])); };
    entry.addEventListener("pointerenter", preview);
    entry.addEventListener("focus", preview);
    for (const end of ["pointerleave", "blur"]) entry.addEventListener(end, () => emphasise(pinned));
    entry.addEventListener("click", () => {
      if (!pinned.delete(own)) pinned.add(own);
      entry.setAttribute("aria-pressed", String(pinned.has(own)));
      emphasise(pinned);
    });
  }
  // Zoom: the view narrows, the marks keep their size on the screen, so that crowds come apart.
  const [, , fullWidth, fullHeight] = svg.getAttribute("viewBox").split(" ").map(Number);
  const drawn = groups.map(group => {
    const own = data.points.filter(point => String(point[2]) === group.dataset.class);
    return group.getAttribute("d").split(/(?=M)/).map((mark, i) => {
      const [, x, y, rest] = /^M(-?[\d.]+) (-?[\d.]+)(.*)$/.exec(mark);
      return [own[i][0], own[i][1], x - own[i][0], y - own[i][1], rest];
    });
  });
  const ringSize = +ring.getAttribute("r");
  let scale = 1, middle = [fullWidth / 2, fullHeight / 2];
  const shrunk = (rest, by) => rest.includes("a")
    ? rest.replace(/a(\S+) (\S+) 0 1 0 (\S+) 0/g, (_, a, b, c) => `a${a / by} ${b / by} 0 1 0 ${c / by} 0`)
    : rest.replace(/-?[\d.]+/g, n => (n / by).toFixed(2));
  const look = (to, at) => {
    const before = scale;
    scale = Math.max(1, Math.min(to, 32));
    const width = fullWidth / scale, height = fullHeight / scale;
    middle = [[at[0], width, fullWidth], [at[1], height, fullHeight]]
      .map(([m, size, full]) => Math.max(size / 2, Math.min(m, full - size / 2)));
    svg.setAttribute("viewBox", `${middle[0] - width / 2} ${middle[1] - height / 2} ${width} ${height}`);
    box.querySelector("[data-zoom='0']").disabled = scale === 1;
    if (scale === before) return;
    drawn.forEach((marks, k) => groups[k].setAttribute("d", marks.map(([x, y, dx, dy, rest]) =>
      `M${(x + dx / scale).toFixed(2)} ${(y + dy / scale).toFixed(2)}${shrunk(rest, scale)}`).join("")));
    ring.setAttribute("r", ringSize / scale);
    svg.style.setProperty("--zoom", scale);
  };
  for (const press of box.querySelectorAll("[data-zoom]")) press.addEventListener("click", () => {
    const by = +press.dataset.zoom;
    const centre = at >= 0 && !tip.hidden ? data.points[at].slice(0, 2) : middle;
    hideTip();
    look(by ? scale * by : 1, centre);
  });
  svg.addEventListener("wheel", event => {
    if (document.activeElement !== svg && !event.ctrlKey) return;  // the page scrolls past a map that was not chosen
    event.preventDefault();
    const p = fromScreen(svg, event), to = Math.max(1, Math.min(scale * Math.exp(-event.deltaY / 300), 32));
    const keep = 1 - scale / to;
    hideTip();
    look(to, [middle[0] + (p.x - middle[0]) * keep, middle[1] + (p.y - middle[1]) * keep]);
  }, { passive: false });
  svg.addEventListener("pointermove", event => {
    if (event.buttons !== 1 || scale === 1) return;
    const per = 1 / svg.getScreenCTM().a;
    hideTip();
    look(scale, [middle[0] - event.movementX * per, middle[1] - event.movementY * per]);
  });
  // A sample by its name, and from a neighbour's picture to its mark.
  const show = index => {
    box.scrollIntoView({ block: "nearest" });
    if (scale > 1) look(scale, data.points[index].slice(0, 2));
    go(index, true);
    shownAt = scrollY;
  };
  const find = box.querySelector(".find-sample input");
  if (find) {
    const told = box.querySelector(".find-sample output");
    let turn = 0;
    const seek = () => {
      const wanted = find.value.trim().toLowerCase();
      const found = wanted ? data.points.map((_, i) => i).filter(i => data.names[i].toLowerCase().includes(wanted)) : [];
      told.textContent = !wanted ? "" : found.length ? `${turn % found.length + 1} of ${found.length}` : "none";
      if (found.length) show(found[turn % found.length]); else clear();
    };
    find.addEventListener("input", () => { turn = 0; seek(); });
    find.addEventListener("keydown", event => { if (event.key === "Enter") { turn += 1; seek(); } });
  }
  const gallery = document.getElementById(id.replace(/map$/, "neighbours"));
  const rows = new Map(data.points.map((point, i) => [point[3], i]));
  for (const figure of gallery ? gallery.querySelectorAll("[data-point]") : []) {
    const index = rows.get(+figure.dataset.point);
    if (index === undefined) continue;
    figure.tabIndex = 0;
    figure.setAttribute("role", "button");
    figure.setAttribute("aria-label", "On the map: " + (data.names ? data.names[index] : "sample"));
    figure.title = figure.getAttribute("aria-label");
    figure.addEventListener("click", () => show(index));
    figure.addEventListener("keydown", event => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      show(index);
    });
  }
  const search = box.querySelector(".find input[type=search]");
  if (search) search.addEventListener("input", () => {
    const wanted = search.value.trim().toLowerCase();
    for (const entry of buttons) entry.parentElement.hidden = !entry.title.toLowerCase().includes(wanted);
  });
}

// Before and after: the range input does the dragging, the keys and the touch; this only moves the cut.
for (const slider of document.querySelectorAll(".slider")) {
  const input = slider.querySelector("input");
  const move = () => {
    slider.style.setProperty("--cut", input.value + "%");
    input.setAttribute("aria-valuetext", `${input.value} % input, ${100 - input.value} % restored`);
  };
  input.addEventListener("input", move);
  move();
}

for (const copy of document.querySelectorAll("button.copy")) {
  copy.addEventListener("click", async () => {
    const code = copy.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      copy.textContent = "Copied";
    } catch (e) {
      getSelection().selectAllChildren(code);
      copy.textContent = "Selected";
    }
    setTimeout(() => { copy.textContent = "Copy"; }, 1600);
  });
}

// Clouds of points: far ones first, turned about the vertical by themselves until somebody takes hold.
for (const figure of document.querySelectorAll("[data-cloud]")) {
  const data = JSON.parse(document.getElementById(figure.dataset.cloud).textContent);
  const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const places = new Uint16Array(bytes(data.places).buffer);
  const layers = data.layers.map(layer => ({ name: layer.name, colours: bytes(layer.colours) }));
  const canvas = figure.querySelector("canvas"), pen = canvas.getContext("2d"), tools = figure.querySelector(".cloud-tools");
  const count = data.count, half = data.span.map(s => s / 2), reach = Math.hypot(...half) || 1;
  const order = new Uint32Array(count).map((_, i) => i), depth = new Float32Array(count);
  const right = new Float32Array(count), up = new Float32Array(count);
  let layer = 0, turn = 0.6, tilt = 0.45, held = null, last = 0;
  let moving = !matchMedia("(prefers-reduced-motion: reduce)").matches, seen = false;
  const draw = () => {
    const [ct, st, cp, sp] = [Math.cos(turn), Math.sin(turn), Math.cos(tilt), Math.sin(tilt)];
    const scale = 0.46 * Math.min(canvas.width, canvas.height) / reach;
    for (let i = 0; i < count; i++) {
      const [x, y, z] = [0, 1, 2].map(k => places[3 * i + k] / 65535 * data.span[k] - half[k]);
      const across = x * ct - y * st, away = x * st + y * ct;
      right[i] = across; up[i] = z * cp + away * sp; depth[i] = away * cp - z * sp;
    }
    order.sort((a, b) => depth[b] - depth[a]);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    const colours = layers[layer].colours;
    for (const i of order) {
      pen.fillStyle = `rgb(${colours[3 * i]} ${colours[3 * i + 1]} ${colours[3 * i + 2]})`;
      pen.fillRect(canvas.width / 2 + right[i] * scale - 1.5, canvas.height / 2 - up[i] * scale - 1.5, 3, 3);
    }
  };
  layers.forEach((one, k) => {
    const button = element("button", "", one.name);
    button.type = "button";
    button.setAttribute("aria-pressed", String(k === 0));
    button.addEventListener("click", () => {
      layer = k;
      [...tools.children].forEach((other, j) => other.setAttribute("aria-pressed", String(j === k)));
      draw();
    });
    tools.append(button);
  });
  const take = (across, down) => {
    moving = false;
    turn += across;
    tilt = Math.max(-1.5, Math.min(1.5, tilt + down));
    draw();
  };
  canvas.addEventListener("pointerdown", event => { held = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointerup", () => { held = null; });
  canvas.addEventListener("pointermove", event => {
    if (!held) return;
    take((event.clientX - held[0]) / 150, (event.clientY - held[1]) / 150);
    held = [event.clientX, event.clientY];
  });
  canvas.addEventListener("keydown", event => {
    const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] }[event.key];
    if (step) { event.preventDefault(); take(...step); }
  });
  const go = now => {
    if (!moving || !seen) return;
    if (now - last > 40) { turn += 0.012; last = now; draw(); }
    requestAnimationFrame(go);
  };
  draw();
  if ("IntersectionObserver" in window) new IntersectionObserver(entries => {
    seen = entries.at(-1).isIntersecting;
    requestAnimationFrame(go);
  }).observe(canvas);
}

// Reports of a scroll that was over before the tip opened must not close it.
addEventListener("scroll", () => { if (Math.abs(scrollY - shownAt) > 2) hideTip(); }, { passive: true });
addEventListener("keydown", event => { if (event.key === "Escape") hideTip(); });
// Paper has no folds: open everything but the other runs while printing, and put it back after.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open]):not(.run):not(.run *)")];
  opened.forEach(fold => { fold.open = true; });
});
addEventListener("afterprint", () => opened.forEach(fold => { fold.open = false; }));

// Labels to correct: a choice in each row beside its label, and the table of them that `corrections=` reads.
for (const bar of document.querySelectorAll("[data-corrections]")) {
  const table = document.getElementById(bar.dataset.corrections);
  const { classes, rows } = JSON.parse(document.getElementById(bar.dataset.corrections + "-labels").textContent);
  const save = bar.querySelector("button"), told = bar.querySelector("output");
  const choices = document.createDocumentFragment();
  for (const name of classes) choices.append(new Option(name));
  choices.append(new Option("leave out", "-"));
  const label = table.tHead.rows[0].querySelectorAll(".sort")[1].parentNode, place = label.cellIndex + 1;
  const head = label.cloneNode(true);
  head.firstChild.textContent = "corrected";
  label.after(head);
  const selects = [...table.tBodies[0].rows].map((row, k) => {
    const select = element("select");
    select.setAttribute("aria-label", "Corrected label of " + rows[k][0]);
    select.append(new Option("", ""), choices.cloneNode(true));
    row.insertCell(place).append(select);
    return select;
  });
  const chosen = () => rows.map((row, k) => [...row, selects[k].value]).filter(row => row[2]);
  const count = () => {
    const all = chosen(), out = all.filter(row => row[2] === "-").length, changed = all.length - out;
    const said = [changed && `${changed} corrected`, out && `${out} to be left out`].filter(Boolean);
    told.textContent = said.join(", ") || "nothing corrected yet";
    save.disabled = !all.length;
    selects.forEach(select => select.classList.toggle("chosen", select.value !== ""));
  };
  const cell = text => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const inert = name => /^[=+\-@\t\r]/.test(name) ? "'" + name : name;  // a spreadsheet would run it
  const bytes = text => text.split(/(\p{Surrogate})/u).map(part =>  // bytes of a file's name that are no UTF-8
    /^\p{Surrogate}$/u.test(part) ? Uint8Array.of(part.charCodeAt(0) & 255) : part);
  save.addEventListener("click", () => {
    const lines = [["name", "label", "corrected"], ...chosen().map(([name, ...rest]) => [inert(name), ...rest])];
    const text = lines.map(line => line.map(cell).join(",") + "\n").join("");
    const link = element("a");
    link.href = URL.createObjectURL(new Blob(bytes(text), { type: "text/csv" }));
    link.download = "corrections.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  });
  table.addEventListener("change", count);
  bar.hidden = false;
  count();
}

// A click on a heading sorts its table: numbers by size, words by the alphabet; once more turns it round.
for (const button of document.querySelectorAll("table.sortable .sort")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), body = head.closest("table").tBodies[0], place = head.cellIndex;
    const up = head.getAttribute("aria-sort") !== "ascending";
    const read = cell => (cell.querySelector("select") ?? { value: cell.textContent }).value;
    const value = row => read(row.cells[place]).trim().replace("\u2212", "-").replaceAll(",", "");
    const numeric = [...body.rows].every(row => value(row) === "" || !Number.isNaN(Number(value(row))));
    const order = numeric ? (a, b) => Number(value(a)) - Number(value(b)) : (a, b) => value(a).localeCompare(value(b));
    for (const other of head.parentNode.cells) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    [...body.rows].sort((a, b) => (up ? 1 : -1) * order(a, b)).forEach(row => body.append(row));
  });
}

// The contents mark the section in view.
const links = new Map([...document.querySelectorAll(".contents a")].map(a => [a.hash.slice(1), a]));
if ("IntersectionObserver" in window) {
  const watch = new IntersectionObserver(entries => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      links.forEach(link => link.removeAttribute("aria-current"));
      links.get(entry.target.id).setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-15% 0px -75% 0px" });
  links.forEach((link, id) => { const target = document.getElementById(id); if (target) watch.observe(target); });
}
})();
