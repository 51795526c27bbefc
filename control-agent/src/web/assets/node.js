// The node itself: vital figures, drops, policies, workers, nodes of the packet graph, components.

import { $, Recent, bar, el, message, rows, term } from "./page.js";
import { bytes, count, percent, plural, rate, ratio, span } from "./words.js";

const sum = (items, of) => items.reduce((total, item) => total + of(item), 0);
const grown = (now, before) => Math.max(0, now - (before ?? 0));

const totals = new Recent((status) => status.dataplane?.rx ?? 0);
const dropped = new Recent(({ drops }) => sum(drops, (drop) => drop.packets));
const ran = new Recent(({ workers }) => sum(workers, (worker) => worker.cycles));
let last;

export function status(now) {
  last = now;
  totals.take(now);
  const [{ dataplane }, before, seconds] = [now, totals.before?.dataplane, totals.seconds];
  $("#node").textContent = now.node;
  const a_second = (field) => (before && dataplane ? `${rate(grown(dataplane[field], before[field]) / seconds)}/s` : "–");
  const vitals = [
    ["in", a_second("rx"), "Packets received"], ["out", a_second("tx"), "Packets sent"],
    ["dropped", a_second("drops"), "Packets dropped"],
    ["lost", dataplane ? count(dataplane.lost) : "–", "Packets that the kernel lost before they were received, since the dataplane began"],
    ["flows", dataplane ? count(dataplane.flows) : "–", "Flows in the tables of all workers"],
    ["frames free", dataplane ? percent(dataplane.freeFrames, dataplane.frames) : "–", "Of the packet memory"],
    ["policy", `${count(now.adoptedGeneration)} of ${count(now.sentGeneration)}`, "Generation that the dataplane judges by, of the last that it was sent"],
    ["up", dataplane ? span(dataplane.uptimeSeconds) : "–", "The dataplane; the agent: " + span(now.uptimeSeconds)],
  ];
  const place = $("#vitals");
  vitals.forEach(([name, value, title], index) => {
    const pair = place.children[index] ?? place.appendChild(el("div", {}, el("dt", { textContent: name }), el("dd")));
    pair.title = title;
    pair.lastElementChild.textContent = value;
  });

  const ill = now.components.filter((component) => !component.healthy);
  const health = $("#health");
  health.className = ill.length ? "bad" : "good";
  const names = ill.slice(0, 3).map((component) => component.name).join(", ");
  health.textContent = ill.length ? `✕ ${ill.length} of ${plural(now.components.length, "component")} not well: ${names}${ill.length > 3 ? "…" : ""}` : `✓ ${plural(now.components.length, "component")} well`;
  document.title = `${ill.length ? "✕ " : ""}${now.node} · Margay`;
  const listed = [...ill, ...now.components.filter((component) => component.healthy)];
  rows($("#components tbody"), listed, (of) => of.name, (of) => [
    ["name", of.name], [of.healthy ? "good" : "bad", of.healthy ? "✓ well" : "✕ not well"], ["words", of.reason],
    ["", of.sinceUnixSeconds ? new Date(of.sinceUnixSeconds * 1000).toLocaleString("sv") : ""],
  ], (of) => (of.healthy ? "" : "deny"));
  message($("#components"), "");
  if (ran.now) load();
}

export function drops(now) {
  dropped.take(now);
  const [before, seconds] = [dropped.before, dropped.seconds];
  const listed = now.drops.map((drop) => {
    const old = before?.drops.find((of) => of.reason === drop.reason);
    return { ...drop, rate: before ? grown(drop.packets, old?.packets) / seconds : undefined };
  });
  listed.sort((a, b) => b.packets - a.packets);
  rows($("#drops tbody"), listed, (drop) => drop.reason, (drop) => [
    ["name", drop.reason, () => [term("reason", drop.reason)]],
    ["figure", count(drop.packets)],
    [drop.rate ? "figure bad" : "figure", drop.rate === undefined ? "–" : rate(drop.rate)],
    ["words", JSON.stringify([drop.sentence, drop.lastPacket, drop.rules]), () => what(drop)],
  ]);
  const known = $("#reasons");
  if (known.children.length !== listed.length) {
    known.replaceChildren(...listed.map((drop) => el("option", { value: drop.reason })));
  }
  message($("#drops"), listed.length ? "" : "Nothing has been dropped since the dataplane began.");
}

function what(drop) {
  const parts = [el("div", { textContent: drop.sentence })];
  if (drop.lastPacket) parts.push(el("div", { className: "faint", textContent: drop.lastPacket }));
  for (const rule of drop.rules.slice(0, 3)) {
    const by = [rule.tier, rule.policy || "default"].filter(Boolean).join(" ");
    const words = `${count(rule.packets)} by ${by}${rule.rule >= 0 ? ` rule ${rule.rule}` : ""}, ${rule.direction} of ${rule.endpoint}`;
    parts.push(el("div", { className: "faint", textContent: words }));
  }
  if (drop.rules.length > 3) parts.push(el("div", { className: "faint", textContent: `and ${drop.rules.length - 3} more rules` }));
  return parts;
}

/** The name at the end of "egress TIER/POLICY": what the filter takes. */
const policy = (by) => (/ (default|no profile)$/.test(by) ? "" : by.replace(/^(host )?(egress|ingress) /, "").replace(/^(?!profile )\S+ (?=\S)/, ""));

export function policies(groups, filtered, ago) {
  rows($("#policies tbody"), groups.slice(0, 100), (of) => `${of.verdict} ${of.policy}`, (of) => [
    ["name", of.policy, () => of.policy.split(", ").map((by) => el("div", {}, policy(by) ? term("policy", policy(by), by) : by || "no policy"))],
    [`verdict ${of.verdict}`, of.verdict === "allow" ? "allow" : of.verdict.toUpperCase()],
    ["figure", count(of.began)], ["figure", count(of.refused)], ["figure", count(of.packets + of.replyPackets)],
    ["figure", bytes(of.bytes + of.replyBytes)], ["figure", of.stagedDiffers ? count(of.stagedDiffers) : ""],
  ], (of) => of.verdict);
  $("#policies-note").textContent = `flows of the last ${ago}`;
  message($("#policies"), groups.length ? "" : filtered ? "No flow of this time is like the filter." : "No policy has decided anything in this time.");
}

export function runtime(now) {
  ran.take(now);
  load();
}

/** One worker's growth since the earlier sample; since its start, while there is none. */
function since(worker, before) {
  const old = before?.workers.find((of) => of.worker === worker.worker);
  const nodes = worker.nodes.map((node) => {
    const was = old?.nodes.find((of) => of.name === node.name);
    const of = (field) => grown(node[field], was?.[field]);
    return { name: node.name, vectors: of("vectors"), packets: of("packets"), cycles: of("cycles") };
  });
  const of = (field) => grown(worker[field], old?.[field]);
  return { worker: worker.worker, polls: of("polls"), emptyPolls: of("emptyPolls"), cycles: of("cycles"), busyCycles: of("busyCycles"), nodes };
}

export function load() {
  const { now, before } = ran;
  if (!now) return;
  const whole = now.workers.map((worker) => since(worker));
  const recent = now.workers.map((worker) => since(worker, before));
  const packets = (workers) => sum(workers, (worker) => sum(worker.nodes, (node) => node.packets));
  // Costs of a worker that has nothing to do are those that it had.
  const idle = !before || packets(recent) === 0;
  const workers = before ? recent : whole;
  const age = Math.max(0, ...whole.map((of) => of.cycles)) / now.tscHz;
  const seconds = before ? ran.seconds : age;
  const choice = $("#worker");
  if (choice.options.length !== workers.length + 1) {
    const chosen = choice.value;
    const option = (of) => el("option", { value: String(of.worker), textContent: `worker ${of.worker}` });
    choice.replaceChildren(choice.options[0], ...workers.map(option));
    choice.value = workers.some((of) => String(of.worker) === chosen) ? chosen : "";
  }
  rows($("#workers tbody"), workers, (of) => of.worker, (of) => {
    const known = last?.dataplane?.workers.find((worker) => worker.id === of.worker);
    const busy = percent(of.busyCycles, of.cycles);
    const packets = of.nodes.find((node) => node.name === "parse")?.packets ?? 0;
    return [
      ["name", of.worker], ["figure", known ? `${known.core}${known.pinned ? "" : " (not pinned)"}` : "–"],
      ["share", busy, () => [bar(of.busyCycles / of.cycles), busy]],
      ["figure", rate(packets / seconds)], ["figure", percent(of.emptyPolls, of.polls)],
      ["figure", known ? count(known.flows) : "–"], ["figure", known ? percent(known.flows, known.capacity) : "–"],
      ["", known?.idleState ?? "–"],
    ];
  });

  const chosen = (idle ? whole : recent).filter((of) => choice.value === "" || String(of.worker) === choice.value);
  const nodes = new Map();
  for (const node of chosen.flatMap((of) => of.nodes)) {
    const all = nodes.get(node.name) ?? { name: node.name, vectors: 0, packets: 0, cycles: 0 };
    for (const field of ["vectors", "packets", "cycles"]) all[field] += node[field];
    nodes.set(node.name, all);
  }
  const active = [...nodes.values()].filter((node) => node.packets).sort((a, b) => b.cycles - a.cycles);
  const cycles = sum(active, (node) => node.cycles);
  rows($("#nodes tbody"), active, (of) => of.name, (of) => {
    const share = percent(of.cycles, cycles);
    return [
      ["name", of.name], ["figure", rate(of.packets / (idle ? age : ran.seconds))], ["figure", ratio(of.packets, of.vectors)],
      ["figure", ratio(of.cycles, of.packets)], ["figure", now.tscHz > 0 ? ratio((of.cycles / now.tscHz) * 1e9, of.packets) : "–"],
      ["share", share, () => [bar(of.cycles / cycles), share]],
    ];
  });
  const last10 = `the last ${ran.seconds.toFixed(0)} s`;
  const time = before ? `of ${last10}${idle ? "; no packet in it: nodes since the start" : ""}` : "since the start";
  $("#load-note").textContent = packets(whole) ? time : "no packet yet";
  message($("#load"), workers.length ? "" : "The dataplane has no worker.");
}
