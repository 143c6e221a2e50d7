// What may be asked of a model, and how. A task is offered where the chosen model can do it.

import { chat, post } from "./api.js";
import { counted, listed } from "./dom.js";
import { marked } from "./stage.js";

const has = (...tasks) => (model) => model.sees_images && tasks.some((task) => model.tasks.includes(task));

/** `field`: the one text that is asked for, `may` be empty or not; `run`: fills the card, gives what is announced. */
export const TASKS = [
  { id: "caption", title: "Caption", verb: "Describe it", can: has("caption"), run: (ask) => streamed(ask, []) },
  {
    id: "ask",
    title: "Ask",
    verb: "Ask",
    can: has("ask", "complete"),
    field: { label: "Question", placeholder: "what is in the image?" },
    keeps: true,
    run: asked,
  },
  {
    id: "detect",
    title: "Detect",
    verb: "Find",
    can: has("detect"),
    field: { label: "What to find", placeholder: "dog, red car", hint: "Names, separated by commas; none where the model has labels of its own.", may: true },
    run: (ask) => found(ask, "/v1/detect", ask.text ? { labels: listed(ask.text) } : {}),
  },
  {
    id: "segment",
    title: "Segment",
    verb: "Outline",
    can: has("segment"),
    field: { label: "What to outline", placeholder: "the dog on the left", hint: "Phrases, separated by commas." },
    run: (ask) => found(ask, "/v1/segment", { phrases: listed(ask.text) }),
  },
  {
    id: "classify",
    title: "Classify",
    verb: "Classify",
    can: has("classify"),
    field: { label: "Your labels", placeholder: "beach, forest, city", hint: "As many as you like, separated by commas." },
    run: classified,
  },
  {
    id: "explain",
    title: "Where",
    verb: "Show where",
    can: (model) => model.explains,
    field: { label: "Where is …", placeholder: "red circle", hint: "What moved the score of these words in this network, and no more." },
    run: explained,
  },
  {
    id: "imagine",
    title: "Draw",
    verb: "Draw it",
    can: (model) => model.tasks.includes("imagine"),
    field: { label: "What to draw", placeholder: "a red circle above a blue square" },
    run: drawn,
  },
];

const part = (image) => ({ type: "image_url", image_url: { url: image.source } });

async function streamed({ model, image, card, signal, begun }, parts, question, before = []) {
  const say = card.turn(question);
  const messages = [...before, { role: "user", content: before.length ? parts : [part(image), ...parts] }];
  let first, text = "";
  for await (const piece of chat({ model: model.id, messages }, signal)) {
    first ??= performance.now() - begun;
    text += piece;
    say(piece);
  }
  card.ended();
  card.first = first;
  card.messages = [...messages, { role: "assistant", content: text }];
  return "answered";
}

/** A model that continues documents reads the whole conversation; one that answers questions, the last alone. */
function asked(ask) {
  const before = ask.model.tasks.includes("ask") ? [] : (ask.card.messages ?? []);
  return streamed(ask, [{ type: "text", text: ask.text }], ask.text, before);
}

async function found({ model, image, card, signal }, route, body) {
  const { data } = await post(route, { model: model.id, image: image.source, ...body }, signal);
  return `${card.found(marked(data[0].predictions), data[0].image)} found`;
}

async function classified({ model, image, card, text, signal }) {
  const { data } = await post("/v1/classify", { model: model.id, image: image.source, labels: listed(text) }, signal);
  const ranking = data[0].predictions;
  card.shares(ranking.map(({ label, probability }) => [label, probability]));
  return ranking[0].label;
}

async function explained({ model, image, card, text, signal }) {
  const texts = listed(text);
  const { data } = await post("/v1/explain", { model: model.id, image: image.source, texts }, signal);
  await card.seen(texts, data[0].predictions);
  return `${counted(texts.length, "place", "places")} shown`;
}

async function drawn({ model, card, text, signal }) {
  const { data } = await post("/v1/images/generations", { model: model.id, prompt: text }, signal);
  card.drawn(data[0].b64_json, text);
  return "drawn";
}
