// The table of flows: records as they came, the newest on top.

import { $, el, message, term } from "./page.js";
import { bytes, clock, count, plural, protocol } from "./words.js";

/** Rows that are kept. */
const ROWS = 500;

const section = $("#flows");
const body = section.querySelector("tbody");

const party = (of) => of && (of.namespace ? `${of.namespace}/${of.name}` : of.name);
const end = (address, port) => {
  if (!address) return "?";
  if (!port) return address;
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
};

/** A name and an address, one of which is a term of the filter. */
function who(field, of, address, port, behind) {
  const name = party(of);
  const at = end(address, port) + (behind ? ` = ${behind}` : "");
  if (!name) return el("td", {}, term(field, address ?? "", at));
  return el("td", {}, term(field, name), el("span", { className: "faint", textContent: `  ${at}` }));
}

function decision(way, of) {
  const by = [of.tier, of.policy || (of.tier ? "default" : "no profile")].filter(Boolean).join(" ");
  const staged = of.staged && of.staged.verdict !== of.verdict ? ` (staged: ${of.staged.verdict})` : "";
  const words = `${way} ${by}${of.rule >= 0 ? ` rule ${of.rule}` : ""}${staged}`;
  return of.policy ? term("policy", of.policy, words) : el("span", { textContent: words });
}

function why(flow) {
  const parts = [];
  if (flow.reason) parts.push(term("reason", flow.reason));
  if (flow.egress) parts.push(decision("egress", flow.egress));
  if (flow.ingress) parts.push(decision("ingress", flow.ingress));
  for (const stage of flow.host ?? []) {
    if (stage.verdict && stage.verdict !== "pass") parts.push(decision(`host ${stage.direction}`, stage));
  }
  if (flow.rulesChanged) parts.push(el("span", { className: "faint", textContent: "policy has changed since" }));
  return parts.flatMap((part, index) => (index ? [" · ", part] : [part]));
}

function row(flow) {
  const { original = {}, reply } = flow;
  // A service's address, where another answers.
  const behind = reply && reply.source !== original.destination ? end(reply.source, reply.sourcePort) : "";
  const figure = (number, text = count) => el("td", { className: "figure", textContent: number ? text(number) : "" });
  const made = el("tr", { className: flow.verdict },
    el("td", { textContent: clock(flow.unixNanos / 1e6, true) }),
    el("td", { textContent: flow.event }),
    el("td", { className: `verdict ${flow.verdict}`, textContent: flow.verdict === "allow" ? "allow" : flow.verdict.toUpperCase() }),
    who("from", flow.source, original.source, original.sourcePort),
    who("to", flow.destination, original.destination, original.destinationPort, behind),
    el("td", {}, term("protocol", String(flow.protocol), protocol(flow.protocol) + (flow.icmp ? ` ${flow.icmp.join("/")}` : ""))),
    figure(flow.packets), figure(flow.bytes, bytes), figure(flow.replyPackets), figure(flow.replyBytes, bytes),
    el("td", { className: "why" }, ...why(flow)));
  return made;
}

/** Forgets what is shown. */
export function clear() {
  body.replaceChildren();
}

export function show(answer) {
  if (answer.anew) clear();
  const scroll = section.querySelector(".scroll");
  const top = body.firstElementChild?.offsetTop;
  const first = body.firstElementChild;
  body.prepend(...answer.flows.slice(-ROWS).reverse().map(row));
  // Who reads further down goes on reading there.
  if (first && scroll.scrollTop > 0) scroll.scrollTop += first.offsetTop - top;
  while (body.rows.length > ROWS) body.lastElementChild.remove();
  const notes = [`${plural(body.rows.length, "record")}, the newest first`];
  if (answer.missed) notes.push(`${count(answer.missed)} came and went unseen`);
  if (answer.leftOut) notes.push(`${count(answer.leftOut)} older left out`);
  if (answer.lost) notes.push(`${count(answer.lost)} lost on the way from workers`);
  $("#flows-note").textContent = notes.join(" · ");
}

/** What to say where there is no row. */
export function explain(filtered) {
  const nothing = filtered ? "No flow that is kept is like the filter." : "No flow yet: nothing has been forwarded or refused since the agent began to read.";
  message(section, body.rows.length ? "" : nothing);
}
