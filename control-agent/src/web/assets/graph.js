// Who talks to whom: those who open on the left, those who are reached on the right.

import { $, el, message, svg } from "./page.js";
import { bytes, count, plural } from "./words.js";

/** Names on a side. The rest is one more. */
const NAMES = 18;
const ROW = 24;
/** Along an edge, where its amount may stand: the first that is free. */
const PLACES = [0.5, 0.36, 0.64, 0.25, 0.75];

const section = $("#graph");
const picture = $("#picture");
const detail = $("#detail");

let shown = { key: "", edges: [] };

/** What is one node: a workload, or a namespace. What has neither is an address. */
function node(name, grain) {
  if (grain === "workloads") return name || "?";
  if (name.includes("/")) return name.slice(0, name.indexOf("/") + 1);
  return /^[0-9a-f]*[.:][0-9a-f.:]*$/.test(name) ? "addresses without a name" : name;
}

function gathered(groups, grain) {
  const edges = new Map();
  for (const of of groups) {
    const [from, to] = [node(of.source, grain), node(of.destination, grain)];
    const key = JSON.stringify([from, to, of.verdict]);
    const edge = edges.get(key) ?? { from, to, verdict: of.verdict, bytes: 0, began: 0, refused: 0 };
    edge.bytes += of.bytes + of.replyBytes;
    edge.began += of.began;
    edge.refused += of.refused;
    edges.set(key, edge);
  }
  return [...edges.values()];
}

/** Those of a side who have most to do come first; what finds no place is put together. */
function side(edges, end) {
  const weights = new Map();
  for (const edge of edges) {
    // What is refused is to be seen.
    const weight = Math.log2(2 + edge.bytes) + (edge.refused ? 100 + Math.log2(edge.refused) : 0);
    weights.set(edge[end], (weights.get(edge[end]) ?? 0) + weight);
  }
  const names = [...weights].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([name]) => name);
  if (names.length <= NAMES) return names;
  const others = `${names.length - NAMES} others`;
  const kept = new Set(names.slice(0, NAMES));
  for (const edge of edges) if (!kept.has(edge[end])) edge[end] = others;
  return [...kept, others];
}

/** Beside those whom they talk to: by the mean of their places. */
function untangled(names, edges, end, other, places) {
  const mean = (name) => {
    const of = edges.filter((edge) => edge[end] === name).map((edge) => places.indexOf(edge[other]));
    return of.reduce((sum, place) => sum + place, 0) / of.length;
  };
  const means = new Map(names.map((name, index) => [name, [mean(name), index]]));
  return names.sort((a, b) => means.get(a)[0] - means.get(b)[0] || means.get(a)[1] - means.get(b)[1]);
}

function amount(edge) {
  if (edge.verdict !== "allow") return `${count(edge.refused)} refused`;
  return edge.bytes ? bytes(edge.bytes) : plural(edge.began, "new flow");
}

function sentence(edge) {
  const what = edge.verdict === "allow" ? `${bytes(edge.bytes)} both ways, ${plural(edge.began, "new flow")}` : `${edge.verdict.toUpperCase()}, ${plural(edge.refused, "packet")} refused`;
  return `${edge.from} → ${edge.to}: ${what}`;
}

function describe(edges, more) {
  const lines = edges.slice(0, 4).map((edge) => el("div", { className: edge.verdict, textContent: sentence(edge) }));
  if (edges.length > 4) lines.push(el("div", { textContent: `and ${edges.length - 4} more` }));
  detail.replaceChildren(...(lines.length ? lines : [more]));
}

/** A point of a Bézier curve, in one dimension. */
const mid = (t, a, b, c, d) => a * (1 - t) ** 3 + 3 * b * t * (1 - t) ** 2 + 3 * c * t * t * (1 - t) + d * t ** 3;

const HINT = "Solid: allowed, the wider the more bytes. Dashed: refused. Point at a name to see its own; choose it to filter by it.";

export function draw(groups, grain, filtered) {
  const edges = gathered(groups, grain);
  message(section, edges.length ? "" : filtered ? "No flow of this time is like the filter." : "Nobody has talked to anybody in this time.");
  if (!edges.length) return;
  const left = side(edges, "from");
  const right = side(edges, "to");
  // Put together anew, as ends have become others.
  const merged = new Map();
  for (const edge of edges) {
    const key = JSON.stringify([edge.from, edge.to, edge.verdict]);
    const into = merged.get(key);
    if (!into) merged.set(key, edge);
    else for (const of of ["bytes", "began", "refused"]) into[of] += edge[of];
  }
  const all = [...merged.values()].sort((a, b) => (a.verdict === "allow" ? 0 : 1) - (b.verdict === "allow" ? 0 : 1) || a.bytes - b.bytes);
  untangled(right, all, "to", "from", left);
  untangled(left, all, "from", "to", right);

  const width = Math.max(300, picture.clientWidth || 600);
  const key = JSON.stringify([width, left, right, all]);
  if (key === shown.key) return;
  const focused = document.activeElement?.closest?.("#picture .node")?.dataset.node;
  shown = { key, edges: all };

  const label = Math.min(230, width * 0.33);
  const [x1, x2] = [label + 8, width - label - 8];
  const lines = Math.max(left.length, right.length);
  const height = lines * ROW + 24;
  const at = (names, name) => 12 + (names.indexOf(name) + 0.5) * (height - 24) / names.length;
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "group", "aria-label": "Who talks to whom" });
  const [curves, amounts] = [svg("g"), svg("g")];
  const boxes = [];
  const most = Math.max(1, ...all.map((edge) => edge.bytes));
  // What is refused first: its amounts find a place.
  const parts = all.toReversed().map((edge) => {
    // Side by side where a pair has several.
    const shift = edge.verdict === "allow" ? -3 : 4;
    const [y1, y2] = [at(left, edge.from) + shift, at(right, edge.to) + shift];
    const wide = edge.verdict === "allow" ? 1.5 + 6 * (Math.log2(1 + edge.bytes) / Math.log2(1 + most)) ** 3 : 2.5;
    const bend = (x2 - x1) / 2.5;
    const curve = svg("path", { class: `edge ${edge.verdict}`, "stroke-width": wide.toFixed(1),
      d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}` }, svg("title", {}, sentence(edge)));
    const words = amount(edge);
    const text = svg("text", { class: "amount", "text-anchor": "middle" }, words);
    const half = words.length * 3.2 + 2;
    const place = (t) => [mid(t, x1, x1 + bend, x2 - bend, x2), mid(t, y1, y1, y2, y2) + 4];
    const free = ([x, y]) => boxes.every((box) => Math.abs(box.x - x) >= box.half + half || Math.abs(box.y - y) >= 13);
    const spot = PLACES.map(place).find(free);
    const [x, y] = spot ?? place(0.5);
    text.setAttribute("x", x);
    text.setAttribute("y", y);
    // Where there is no room it is written when the edge is pointed at.
    if (spot) boxes.push({ x, y, half });
    else text.classList.add("crowded");
    curves.prepend(curve);
    amounts.append(text);
    return { edge, curve, text };
  });
  const choose = (chosen) => {
    root.classList.toggle("chosen", Boolean(chosen));
    for (const { edge, curve, text } of parts) {
      const on = Boolean(chosen?.(edge));
      curve.classList.toggle("on", on);
      text.classList.toggle("on", on);
    }
    describe(chosen ? all.filter(chosen).reverse() : [], HINT);
  };
  parts.forEach(({ edge, curve }) => {
    curve.addEventListener("pointerenter", () => choose((of) => of === edge));
    curve.addEventListener("pointerleave", () => choose());
  });
  root.append(curves, amounts);
  for (const [names, end, x, anchor, field] of [[left, "from", x1, "end", "from"], [right, "to", x2, "start", "to"]]) {
    for (const name of names) {
      const y = at(names, name);
      const own = (edge) => edge[end] === name;
      const room = Math.floor((label - 8) / 6.7);
      const cut = name.length > room ? `${name.slice(0, room - 1)}…` : name;
      const words = `${name}: ${all.filter(own).map(sentence).join("; ")}`;
      const group = svg("g", { class: "node", tabindex: "0", role: "button", "aria-label": words },
        svg("title", {}, name),
        svg("rect", { x: end === "from" ? x - 6 : x, y: y - 7, width: 6, height: 14 }),
        svg("text", { x: end === "from" ? x - 12 : x + 12, y: y + 4, "text-anchor": anchor }, cut));
      group.dataset.node = `${field} ${name}`;
      if (!/ (others|name)$/.test(name)) {
        group.dataset.term = field;
        group.dataset.value = name;
      }
      for (const [event, what] of [["pointerenter", own], ["focus", own], ["pointerleave", undefined], ["blur", undefined]]) {
        group.addEventListener(event, () => choose(what));
      }
      root.append(group);
    }
  }
  picture.replaceChildren(root);
  choose();
  if (focused) [...root.querySelectorAll(".node")].find((of) => of.dataset.node === focused)?.focus();
}
