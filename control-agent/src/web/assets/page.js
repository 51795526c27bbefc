// What the page is made of. All that is shown is written as text.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (selector) => document.querySelector(selector);

/** An element with properties, and children that are elements or texts. */
export function el(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** The same of a picture, with attributes. */
export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** A bar of 0 to 1, before a figure. */
export function bar(part) {
  const width = String(Math.round(70 * Math.min(1, Math.max(0, part || 0))));
  return svg("svg", { viewBox: "0 0 70 9", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "all", width: "70", height: "9" }), svg("rect", { width, height: "9" }));
}

/** A text that, when it is chosen, becomes a term of the filter. */
export function term(name, value, text = value) {
  const button = el("button", { type: "button", textContent: text, title: `Only ${name} ${value}` });
  button.dataset.term = name;
  button.dataset.value = value;
  return button;
}

/**
 * Makes the rows of a table those of the items, in their order. Rows that are there stay, and so do focus and selection in
 * them. `cells` gives for each cell [class, what it depends on, children or nothing: the former as text].
 */
export function rows(body, items, key, cells, look = () => "") {
  const before = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  let at = body.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let row = before.get(name);
    before.delete(name);
    if (!row) {
      row = el("tr");
      row.dataset.key = name;
    }
    row.className = look(item);
    cells(item).forEach(([style, text, make], index) => {
      const cell = row.cells[index] ?? row.appendChild(el("td"));
      cell.className = style;
      if (cell.dataset.is === String(text)) return;
      cell.dataset.is = text;
      cell.replaceChildren(...(make ? make() : [String(text)]));
    });
    if (row === at) at = at?.nextElementSibling;
    else body.insertBefore(row, at);
  }
  for (const row of before.values()) row.remove();
}

/** In the place of a section's table: why there is nothing to see, or nothing. */
export function message(section, sentence, bad = false) {
  const place = section.querySelector(":scope > .message");
  place.textContent = sentence;
  place.classList.toggle("bad", bad);
  place.hidden = !sentence;
  for (const shown of section.querySelectorAll(":scope > .scroll, :scope > #picture, :scope > #detail")) {
    shown.hidden = Boolean(sentence);
  }
}

/** Counts of the last ten seconds: the newest sample, and one to take differences from. */
export class Recent {
  #samples = [];

  /** `total` tells, of a sample, a count that only grows while the process lives. */
  constructor(total) {
    this.total = total;
  }

  take(sample) {
    const last = this.#samples.at(-1);
    if (last && this.total(sample) < this.total(last.sample)) this.#samples = [];
    const at = performance.now();
    this.#samples.push({ at, sample });
    while (this.#samples.length > 2 && at - this.#samples[1].at >= 10_000) this.#samples.shift();
  }

  get now() {
    return this.#samples.at(-1)?.sample;
  }

  /** The earlier sample; none while there is only one. */
  get before() {
    return this.#samples.length > 1 ? this.#samples[0].sample : undefined;
  }

  get seconds() {
    return this.#samples.length > 1 ? (this.#samples.at(-1).at - this.#samples[0].at) / 1000 : 0;
  }
}
