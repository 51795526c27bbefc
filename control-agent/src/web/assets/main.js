// Asks the agent, a request after the other, and shows what it answers.

import { $, message } from "./page.js";
import * as flows from "./flows.js";
import * as graph from "./graph.js";
import * as node from "./node.js";
import { clock } from "./words.js";

/** Between rounds, in milliseconds. */
const PAUSE = 2000;
/** Rounds from one summary to the next. */
const SUMMARY = 3;
const PATIENCE = 8000;

const form = $("#filter");
const fields = [...form.elements].filter((field) => field.name);
let cursor = "";
let paused = false;
let round = 0;
let heard;
let groups;
let asking = false;
let again = false;
/** Counts filters: an answer to one before is none to this. */
let era = 0;
let timer;

/** The agent said why not. */
class Refusal extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

/** It said nothing. */
class Silence extends Error {}

async function ask(path, terms = {}) {
  const query = new URLSearchParams(Object.entries(terms).filter(([, value]) => value)).toString();
  let status, text;
  try {
    const answer = await fetch(`/api/${path}${query && `?${query}`}`, { signal: AbortSignal.timeout(PATIENCE) });
    [status, text] = [answer.status, await answer.text()];
  } catch {
    throw new Silence();
  }
  if (status !== 200) throw new Refusal(status, text.trim());
  return JSON.parse(text);
}

const filter = () => Object.fromEntries(fields.map((field) => [field.name, field.value.trim()]).filter(([, value]) => value));

/** Shows an answer in a section, or there why there is none. */
async function into(section, work) {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    if (error.status === 400) {
      $("#refused").textContent = error.message;
      $("#refused").hidden = false;
    } else {
      message($(section), `${error.message[0].toUpperCase()}${error.message.slice(1)}`, true);
    }
  }
}

async function tick() {
  const terms = filter();
  const filtered = Object.keys(terms).length > 0;
  const of = era;
  if (!paused) {
    await into("#flows", async () => {
      const answer = await ask("flows", { ...terms, cursor });
      if (paused || of !== era) return;
      cursor = answer.cursor;
      flows.show(answer);
      flows.explain(filtered);
      $("#refused").hidden = true;
    });
  }
  await into("#components", async () => node.status(await ask("status")));
  await into("#load", async () => node.runtime(await ask("runtime")));
  await into("#drops", async () => node.drops(await ask("drops")));
  if (round % SUMMARY === 0) {
    const seconds = $("#span").value;
    await into("#graph", async () => {
      const answer = await ask("summary", { ...terms, seconds });
      if (of !== era) return;
      groups = answer.groups;
      graph.draw(groups, $("#grain").value, filtered);
    });
    await into("#policies", async () => {
      const answer = await ask("summary", { ...terms, seconds, by: "policy" });
      if (of === era) node.policies(answer.groups, filtered, $("#span").selectedOptions[0].textContent);
    });
  }
  if (of === era) round += 1;
}

/** Says that what is shown is old, and why; or that it is not. */
function stale(why) {
  document.body.classList.toggle("lost", Boolean(why));
  const banner = $("#connection");
  banner.hidden = !why;
  const since = heard ? `What is shown is from ${clock(heard)}.` : "Nothing has been heard from it yet.";
  const text = why && `${why}: trying again every ${PAUSE / 1000} s. ${since}`;
  if (banner.textContent !== text) banner.textContent = text;
}

async function turn() {
  clearTimeout(timer);
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  try {
    await tick();
    heard = Date.now();
    stale("");
  } catch (error) {
    const silent = error instanceof Silence;
    if (!silent) console.error(error);
    round = 0;
    stale(silent ? "The agent does not answer" : `This page failed (${error.message})`);
  }
  asking = false;
  if (again) {
    again = false;
    turn();
  } else if (!document.hidden) {
    timer = setTimeout(turn, PAUSE);
  }
}

function anew() {
  era += 1;
  cursor = "";
  round = 0;
  flows.clear();
  const query = new URLSearchParams(filter()).toString();
  history.replaceState(null, "", query ? `?${query}` : location.pathname);
  turn();
}

function pause(on) {
  paused = on;
  $("#pause").setAttribute("aria-pressed", String(on));
  $("#pause").textContent = on ? "Paused: go on" : "Pause";
}

function choose(target) {
  const { term, value } = target.dataset;
  form.elements[term].value = value;
  pause(false);
  anew();
}

const given = new URLSearchParams(location.search);
for (const field of fields) field.value = given.get(field.name) ?? "";

let typed;
form.addEventListener("input", () => {
  clearTimeout(typed);
  typed = setTimeout(anew, 300);
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  anew();
});
form.addEventListener("reset", () => setTimeout(anew));
document.addEventListener("click", (event) => {
  const target = event.target.closest("[data-term]");
  if (target) choose(target);
});
document.addEventListener("keydown", (event) => {
  const target = event.target.closest(".node[data-term]");
  if (target && (event.key === "Enter" || event.key === " ")) {
    event.preventDefault();
    choose(target);
  }
});
$("#pause").addEventListener("click", () => {
  pause(!paused);
  turn();
});
$("#grain").addEventListener("change", () => groups && graph.draw(groups, $("#grain").value, Object.keys(filter()).length > 0));
$("#span").addEventListener("change", anew);
$("#worker").addEventListener("change", node.load);
addEventListener("resize", () => groups && graph.draw(groups, $("#grain").value, Object.keys(filter()).length > 0));
// Nobody looks: nothing is asked.
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : turn()));
turn();
