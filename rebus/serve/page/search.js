// Searches of the folders that the server has an index of.

import { blob, post } from "./api.js";
import { $, h, listed } from "./dom.js";

/** Fills the list; `open(file, name)` takes a hit that is chosen. Gives how many there are. */
export async function searched(text, image, signal, open) {
  const name = $("index").value;
  const route = `/v1/search/${encodeURIComponent(name)}`;
  const { data } = await post(route, question(text, image), signal);
  $("hits").replaceChildren(...data.map((hit) => h("li", {}, cell(route, hit, open))));
  return data.length;
}

function question(text, image) {
  const body = { texts: listed(text), top: Number($("top").value), sort: $("sort").value };
  if (image && $("like").checked) body.image = image.source;
  for (const name of ["since", "until", "under", "larger"]) {
    if ($(name).value.trim()) body[name] = $(name).value.trim();
  }
  for (const name of ["minus", "types"]) {
    if (listed($(name).value).length) body[name] = listed($(name).value);
  }
  return body;
}

function cell(route, hit, open) {
  const address = `${route}/images/${hit.id}`;
  const img = h("img", { alt: hit.caption ?? "", loading: "lazy", decoding: "async", src: address });
  const score = h("span", { className: "muted" }, [hit.score ? hit.score.toFixed(3) : "", hit.caption].filter(Boolean).join(" · "));
  const button = h("button", { type: "button", className: "hit" }, img, h("span", {}, hit.path), score);
  button.onclick = async () => open(await blob(`${address}?side=2048`), hit.path);
  return button;
}
