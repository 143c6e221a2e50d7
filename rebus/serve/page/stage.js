// The image, once for each model that is asked, and what the models found drawn over it.

import { $, h } from "./dom.js";

const MOST = 1024; // pixels a side of what is painted
const COLOURS = 8;

/** A view for each name. One alone is called as the image, several as their models. */
export function views(image, names) {
  const panes = $("panes");
  panes.replaceChildren();
  document.body.dataset.panes = names.length;
  $("empty").hidden = Boolean(image);
  if (!image) return [];
  return names.map((name) => {
    const img = h("img", { src: image.url, alt: image.name });
    const canvas = h("canvas", { "aria-hidden": "true" });
    const inner = h("div", { className: "inner" }, img, canvas);
    inner.style.aspectRatio = `${image.width} / ${image.height}`;
    inner.style.maxWidth = `calc(72vh * ${image.width / image.height})`;
    if (image.width < 300) img.style.imageRendering = "pixelated";
    const frame = h("div", { className: "frame" }, inner);
    const said = names.length > 1 ? name : image.name;
    panes.append(h("figure", {}, frame, h("figcaption", { className: "muted" }, said)));
    return new View(img, canvas, inner, frame);
  });
}

class View {
  constructor(img, canvas, inner, frame) {
    Object.assign(this, { img, canvas, inner, frame });
  }

  clear() {
    this.inner.querySelectorAll(".box").forEach((box) => box.remove());
    this.canvas.width = this.canvas.height = 0;
    this.img.style.filter = "";
    this.frame.classList.remove("one");
  }

  /** Boxes and masks in pixels of an image of this size; `items` have a `key` and a `colour`. */
  draw(items, { width, height }) {
    this.clear();
    for (const item of items) {
      const [left, top, right, bottom] = item.xyxy ?? item.box;
      const box = h("div", { className: "box", "aria-hidden": "true", "data-c": item.colour }, h("span", {}, `${item.key}`));
      box.dataset.key = item.key;
      box.style.left = `${(100 * left) / width}%`;
      box.style.top = `${(100 * top) / height}%`;
      box.style.width = `${(100 * (right - left)) / width}%`;
      box.style.height = `${(100 * (bottom - top)) / height}%`;
      this.inner.append(box);
    }
    const masks = items.filter((item) => item.counts);
    if (masks.length) this.paint(masks);
  }

  paint(masks) {
    const [high, wide] = masks[0].size;
    const step = Math.ceil(Math.max(high, wide) / MOST);
    this.canvas.width = Math.ceil(wide / step);
    this.canvas.height = Math.ceil(high / step);
    const context = this.canvas.getContext("2d");
    const pixels = context.createImageData(this.canvas.width, this.canvas.height);
    for (const mask of masks) fill(pixels, mask, step, rgb(mask.colour));
    context.putImageData(pixels, 0, 0);
  }

  /** One of the boxes before the others; null: all alike. */
  point(key) {
    this.frame.classList.toggle("one", key !== null);
    this.inner.querySelectorAll(".box").forEach((box) => box.classList.toggle("on", box.dataset.key === `${key}`));
  }

  /** Where a text is seen: a grey image over the whole, of which the light places become warm ones. */
  async warm(png) {
    const heat = new Image();
    heat.src = `data:image/png;base64,${png}`;
    await heat.decode();
    this.clear();
    this.img.style.filter = "saturate(.3)";
    this.canvas.width = heat.naturalWidth;
    this.canvas.height = heat.naturalHeight;
    const context = this.canvas.getContext("2d");
    context.drawImage(heat, 0, 0);
    const pixels = context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    for (let at = 0; at < pixels.data.length; at += 4) {
      const value = pixels.data[at] / 255;
      pixels.data.set([255, 190 * (1 - value), 0, 190 * value], at);
    }
    context.putImageData(pixels, 0, 0);
  }
}

/** COCO's run lengths: column by column, background first. */
function fill(pixels, { size: [high], counts }, step, colour) {
  let at = 0;
  counts.forEach((run, number) => {
    const end = at + run;
    for (; number % 2 && at < end; at++) {
      const x = Math.floor(at / high);
      const y = at % high;
      if (x % step === 0 && y % step === 0) pixels.data.set([...colour, 140], 4 * ((y / step) * pixels.width + x / step));
    }
    at = end;
  });
}

function rgb(colour) {
  const hex = getComputedStyle(document.documentElement).getPropertyValue(`--c${colour}`).trim();
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

/** Best first, with a number and a colour for each: one colour a label. */
export function marked(found) {
  const labels = [...new Set(found.map((one) => one.label))];
  return found.toSorted((one, other) => (other.score ?? 0) - (one.score ?? 0)).map((one, index) => ({ ...one, key: index + 1, colour: labels.indexOf(one.label) % COLOURS }));
}
