// The page: an image, a task, one model or two, and the answers.

import { get } from "./api.js";
import { Card } from "./card.js";
import { $, counted, h, seconds } from "./dom.js";
import { listen, opened, photograph } from "./image.js";
import { searched } from "./search.js";
import { views } from "./stage.js";
import { TASKS } from "./tasks.js";

const SEARCH = {
  id: "search",
  title: "Search",
  verb: "Search",
  field: { label: "What to look for", placeholder: "a dog on a beach", hint: "Several texts, separated by commas, are added up.", may: true },
};
const pointing = ["detect", "segment", "explain"]; // their answers are in the image
const state = { models: [], indexes: [], task: null, model: null, other: null, image: null, texts: {}, cards: [], running: null };

const say = (text, wrong = false) => {
  $("status").textContent = text;
  $("status").classList.toggle("error", wrong);
};
const named = (id) => state.models.find((model) => model.id === id) ?? null;
const task = () => (state.task === "search" ? SEARCH : TASKS.find((one) => one.id === state.task));

async function start() {
  for (;;) {
    let phase = null;
    try {
      await get("/readyz");
    } catch (error) {
      phase = error;
    }
    if (phase === null || phase.code === "loading") {
      const [models, indexes] = await Promise.all([get("/v1/models"), get("/v1/search")]);
      if (models.data.length !== state.models.length || phase === null) known(models.data, indexes.data);
    }
    if (phase === null) return say(`${served()} ready`);
    say(phase.code === "loading" ? `Please wait: ${phase.message}` : phase.message, phase.code !== "loading");
    await new Promise((later) => setTimeout(later, 1000));
  }
}

function known(models, indexes) {
  Object.assign(state, { models, indexes });
  const options = (some) => some.map(({ id }) => h("option", { value: id }, id));
  $("model").replaceChildren(...options(models));
  $("index").replaceChildren(...options(indexes));
  $("which").hidden = indexes.length < 2;
  const chosen = named(state.model?.id) ?? models[0] ?? null;
  if (chosen) $("model").value = chosen.id;
  const before = state.task && state.model?.id === chosen?.id;
  state.model = chosen;
  if (before && offered().length === $("tasks").querySelectorAll("input").length) companions();
  else offer();
}

function offered() {
  const found = TASKS.filter((one) => state.model && one.can(state.model));
  return state.indexes.length ? [...found, SEARCH] : found;
}

function served() {
  const [models, folders] = [state.models.length, state.indexes.length];
  const parts = [models && counted(models, "model", "models"), folders && counted(folders, "folder", "folders")];
  return parts.filter(Boolean).join(" and ");
}

/** The tasks of the chosen model alone, and the search. */
function offer() {
  const kept = offered().find((one) => one.id === state.task) ?? offered()[0];
  const radios = offered().map((one) => {
    const radio = h("input", { type: "radio", name: "task", value: one.id, checked: one === kept });
    radio.onchange = () => choose(one.id);
    return h("label", {}, radio, h("span", {}, one.title));
  });
  $("tasks").replaceChildren($("tasks").firstElementChild, ...radios);
  choose(kept?.id ?? null);
}

function choose(id) {
  if (state.task) state.texts[state.task] = $("text").value;
  state.task = id;
  const { field = null, verb = "Go" } = task() ?? {};
  document.body.dataset.task = id ?? "";
  $("asked").hidden = !field;
  $("label").textContent = field?.label ?? "";
  $("text").placeholder = field?.placeholder ?? "";
  $("text").required = Boolean(field) && !field.may;
  $("text").value = state.texts[id] ?? "";
  $("hint").textContent = field?.hint ?? "";
  $("hint").hidden = !field?.hint;
  $("go").textContent = verb;
  $("go").disabled = !id;
  $("filters").hidden = id !== "search";
  $("choose").hidden = id === "search";
  $("domain").hidden = id === "search" || state.model?.domain !== "shapes";
  companions();
  show();
}

/** The models that can do the same. */
function companions() {
  const others = state.models.filter((model) => model !== state.model && task()?.can?.(model));
  $("beside").hidden = !others.length;
  $("other").replaceChildren(h("option", { value: "" }, "nothing"), ...others.map(({ id }) => h("option", { value: id }, id)));
  state.other = others.find((model) => model.id === state.other?.id) ?? null;
  $("other").value = state.other?.id ?? "";
}

/** The image and no answers yet. */
function show() {
  state.running?.abort();
  const names = [state.model, state.other].filter(Boolean).map((model) => model.id);
  state.views = views(state.image, names.length ? names : [""]);
  state.cards = [];
  $("cards").replaceChildren();
  $("hits").replaceChildren();
  $("sure").hidden = true;
  $("alike").hidden = !state.image;
  if (state.image) $("likeness").src = state.image.url;
  $("likeness").hidden = !state.image;
}

async function take(file, name) {
  say(`Opening ${name ?? file.name ?? "the image"} …`);
  try {
    const image = await opened(file, name);
    if (state.image) URL.revokeObjectURL(state.image.url);
    state.image = image;
    if (state.task === "search" && name !== undefined && state.model) {
      state.task = null;
      offer();
      $("controls").focus();
    }
    show();
    say(`${image.name}, ${image.width} × ${image.height}`);
  } catch (error) {
    say(error.message, true);
  }
}

async function run(event) {
  event.preventDefault();
  state.running?.abort();
  if (!state.image && !["search", "imagine"].includes(state.task)) return say("Give an image first.", true);
  const running = (state.running = new AbortController());
  busy(true);
  try {
    await (state.task === "search" ? search(running.signal) : ask(running.signal));
  } catch (error) {
    if (error.name === "AbortError") say("Stopped.");
    else say(error.message, true);
  } finally {
    if (state.running === running) busy(false);
  }
}

async function search(signal) {
  const begun = performance.now();
  say("Searching …");
  const number = await searched($("text").value, state.image, signal, take);
  say(`${counted(number, "image", "images")} in ${seconds(performance.now() - begun)}`);
}

/** One model after the other, so that each has the machine to itself. */
async function ask(signal) {
  const { id, keeps, run: work } = task();
  const text = $("text").value.trim();
  const models = [state.model, state.other].filter(Boolean);
  if (!keeps || !state.cards.length) {
    $("cards").replaceChildren();
    state.views.forEach((view) => view.clear());
    state.cards = models.map((model, index) => new Card(model, state.views[index]));
  }
  $("sure").hidden = !["detect", "segment"].includes(id);
  const told = [];
  for (const [index, model] of models.entries()) {
    const card = state.cards[index];
    say(`${model.id} is at work …`);
    const begun = performance.now();
    try {
      const what = await work({ model, image: state.image, card, text, signal, begun });
      card.took(performance.now() - begun, card.first);
      told.push(`${models.length > 1 ? `${model.id}: ` : ""}${what} in ${seconds(performance.now() - begun)}`);
    } catch (error) {
      card.ended();
      if (error.name === "AbortError") throw error;
      card.failed(error.message);
      told.push(error.message);
    }
  }
  if (keeps) $("text").value = "";
  if (!pointing.includes(id)) $("results").scrollIntoView({ block: "nearest" });
  say(told.join(". "));
}

function busy(on) {
  $("results").setAttribute("aria-busy", `${on}`);
  $("stop").hidden = !on;
}

async function camera() {
  try {
    const shot = await photograph({ dialog: $("viewfinder"), video: $("video"), take: $("take"), close: $("close") });
    if (shot) await take(shot, "photo");
  } catch {
    say("The camera cannot be used here.", true);
  }
}

async function example() {
  const response = await fetch("/page/example.png");
  await take(await response.blob(), "example.png");
}

$("form").onsubmit = run;
$("stop").onclick = () => state.running?.abort();
$("model").onchange = () => {
  state.model = named($("model").value);
  offer();
};
$("other").onchange = () => {
  state.other = named($("other").value);
  show();
};
$("threshold").oninput = () => {
  $("least").textContent = Number($("threshold").value).toFixed(2);
  state.cards.forEach((card) => card.above(Number($("threshold").value)));
};
for (const input of [$("file"), $("shot")]) {
  input.onchange = () => {
    if (input.files.length) take(input.files[0]);
    input.value = "";
  };
}
$("camera").onclick = camera;
$("example").onclick = example;
document.body.classList.toggle("has-camera", Boolean(navigator.mediaDevices?.getUserMedia));
listen((file) => take(file));
choose(null);
start().catch((error) => say(error.message, true));
