// Elements by id, and new ones. Whatever comes from models or files becomes text here, never markup.

export const $ = (id) => document.getElementById(id);

/** An element with properties and attributes (`aria-…`, `data-…`, `role`) and children, of which strings become text. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in element && !key.includes("-")) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

export const seconds = (milliseconds) => `${(milliseconds / 1000).toFixed(milliseconds < 9950 ? 2 : 1)} s`;

export function bytes(number) {
  const [unit, name] = number < 1e6 ? [1e3, "KB"] : number < 1e9 ? [1e6, "MB"] : [1e9, "GB"];
  return `${(number / unit).toFixed(number / unit < 9.95 ? 1 : 0)} ${name}`;
}

/** `a, b,c` as a list without blanks. */
export const listed = (text) => text.split(",").map((part) => part.trim()).filter(Boolean);

export const counted = (number, one, many) => `${number} ${number === 1 ? one : many}`;
