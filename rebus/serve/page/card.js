// One model's answer: text, a conversation, or rows that point into the image.

import { $, bytes, h, seconds } from "./dom.js";

export class Card {
  constructor(model, view) {
    this.view = view;
    this.note = h("p", { className: "muted" });
    this.body = h("div");
    this.root = h("article", { className: "card" }, h("header", {}, h("h2", {}, model.id), this.note), this.body);
    this.model = model;
    $("cards").append(this.root);
  }

  /** How long it took, and what the model takes of the memory. */
  took(milliseconds, first) {
    const begun = first === undefined ? "" : `, first word after ${seconds(first)}`;
    this.note.textContent = `${seconds(milliseconds)}${begun} · ${bytes(this.model.weights_bytes)} of weights`;
  }

  /** Text that grows; `question`: what stands above it. */
  turn(question) {
    if (!this.log) {
      this.log = h("div", { role: "log", "aria-live": "polite", "aria-label": `Answers of ${this.model.id}` });
      this.body.append(this.log);
    }
    const said = h("p", { className: "said" });
    const turn = h("div", { className: "turn" });
    if (question) turn.append(h("p", { className: "asked" }, question));
    turn.append(said);
    this.log.append(turn);
    this.root.classList.add("writing");
    return (piece) => said.append(piece);
  }

  failed(message) {
    this.ended();
    this.body.append(h("p", { className: "error" }, message));
  }

  ended() {
    this.root.classList.remove("writing");
  }

  /** Labels with probabilities, or whatever has a `name` and a share from 0 to 1. */
  shares(entries) {
    const rows = entries.map(([name, share]) => h("li", { className: "row plain" }, ...described(name, share)));
    this.body.replaceChildren(h("ol", { className: "rows" }, ...rows));
  }

  /** A button for each thing that was found: pointed at, its box stands out; pressed, it stays so. Gives how many are
   *  shown. */
  found(items, size) {
    this.items = items;
    this.size = size;
    return this.above(Number($("threshold").value));
  }

  above(least) {
    if (!this.items) return 0;
    const items = this.items.filter((item) => item.score === null || item.score >= least);
    let pressed = null;
    const rows = items.map((item) => {
      const key = h("span", { className: "key", "data-c": item.colour }, `${item.key}`);
      const row = h("button", { type: "button", className: "row", "aria-pressed": "false" }, ...described(item.label, item.score, key));
      row.onfocus = row.onmouseenter = () => this.view.point(item.key);
      row.onblur = row.onmouseleave = () => this.view.point(pressed);
      row.onclick = () => {
        pressed = pressed === item.key ? null : item.key;
        rows.forEach((other) => other.setAttribute("aria-pressed", `${other === row && pressed !== null}`));
        this.view.point(pressed);
      };
      return row;
    });
    this.view.draw(items, this.size);
    const list = h("ol", { className: "rows", "aria-label": `What ${this.model.id} found` }, ...rows.map((row) => h("li", {}, row)));
    const less = this.items.length - items.length;
    const hidden = h("p", { className: "muted" }, less ? `${less} more below that score` : "");
    this.body.replaceChildren(items.length ? list : h("p", { className: "said" }, less ? "Nothing above that score." : "Nothing was found."), hidden);
    return items.length;
  }

  /** A button for each text: pressed, the image shows where it is seen. */
  async seen(texts, found) {
    const rows = texts.map((text, index) => {
      const score = h("span", { className: "number" }, found[index].score?.toFixed(3) ?? "");
      const row = h("button", { type: "button", className: "row plain", "aria-pressed": "false" }, h("span", {}, text), score);
      row.onclick = async () => {
        await this.view.warm(found[index].png);
        rows.forEach((other) => other.setAttribute("aria-pressed", `${other === row}`));
      };
      return row;
    });
    this.body.replaceChildren(h("ul", { className: "rows" }, ...rows.map((row) => h("li", {}, row))));
    await rows[0].onclick();
  }

  drawn(base64, prompt) {
    const img = h("img", { src: `data:image/png;base64,${base64}`, alt: prompt });
    this.body.replaceChildren(h("figure", { className: "drawn" }, img));
  }
}

function described(name, share, ...key) {
  const number = h("span", { className: "number" }, share === null ? "" : share.toFixed(3));
  const bar = h("i");
  bar.style.width = `${100 * Math.max(0, Math.min(1, share ?? 0))}%`;
  const meter = h("span", { className: "meter", "aria-hidden": "true" }, bar);
  return [...key, h("span", {}, name), number, ...(share === null ? [] : [meter])];
}
