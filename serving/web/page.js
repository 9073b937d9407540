/* The page of one user: /web?user=ID, and &tau=LEVEL to begin with that threshold for every attribute.

   The model's state and the user's features come from /web/..., the profile from the ordinary predict API with every
   threshold at 1, so that all tags are there and the sliders decide here which of them are accepted.
   What users wrote goes into the page as text (textContent, attributes), never as markup. */
"use strict";

const CURVE = { width: 300, top: 2, bottom: 62 };

const byId = (id) => document.getElementById(id);

async function main() {
  const parameters = new URLSearchParams(location.search);
  const user = (parameters.get("user") ?? "").trim();
  byId("user").value = user;
  const state = await ask("web/state", "Load this page again");
  showModel(state);
  const cards = state.attributes.map(addCard);
  connectSliders(cards, parameters.get("tau"));
  byId("profile").hidden = false;
  if (!user) return say("Type the id of a user and press Show.");

  const features = await ask(`web/features/${encodeURIComponent(user)}`, "Check the id, then press Show again");
  if (!features.consent) {
    return say(`${user} has not consented to profiling, so nothing is shown or inferred. Pick another user.`);
  }
  showFeatures(features);
  say("Asking the predictor …");
  const answer = await predict(state, user);
  showRationale(answer.rationale);
  for (const card of cards) showAnswer(card, answer.profile[card.attribute.name]);
  say("");
}

/* ---- asking the server */

/** The JSON at an address; an Error whose message is a sentence for the reader, and ends with the advice. */
async function ask(address, advice, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    throw new Error("The server does not answer. Check that it is running, then load this page again.");
  }
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  const reason = body.error ?? body.detail ?? `the server answered ${response.status}`;
  throw new Error(`There is no answer: ${String(reason).replace(/\.$/, "")}. ${advice}.`);
}

async function predict(state, user) {
  const thresholds = Object.fromEntries(state.attributes.map(({ name }) => [name, 1]));
  const body = JSON.stringify({ instances: [{ user_id: user }], parameters: { explain: true, thresholds } });
  const address = `v1/models/${encodeURIComponent(state.model)}:predict`;
  const options = { method: "POST", headers: { "content-type": "application/json" }, body };
  const found = await ask(address, "Check that the predictor is running, then press Show again", options);
  const answer = found.predictions[0];
  if (answer.model_version !== state.version) {
    throw new Error(`The model changed to ${answer.model_version} a moment ago. Press Show again.`);
  }
  return answer;
}

/* ---- what is known of the user */

function showModel(state) {
  const status = state.status === "unjudged" ? " (unjudged: nobody has measured how often it is right)" : "";
  byId("model").textContent = `Model ${state.model}, version ${state.version}${status}`;
}

function showFeatures(features) {
  for (const { label, texts } of features.lists) {
    byId("lists").append(element("h3", label), phraseList(texts));
  }
  for (const { label, value } of features.scalars) {
    byId("scalars").append(element("dt", label), element("dd", value ?? "not given"));
  }
  const moment = features.features_as_of?.slice(0, 16).replace("T", " ");
  byId("as-of").textContent = moment ? `Behaviour as of ${moment} UTC, the most recent last.` : "No behaviour yet.";
  byId("known").hidden = false;
}

function phraseList(phrases) {
  if (phrases.length === 0) return element("p", "nothing", "soft");
  const list = element("ul", "", "phrases");
  for (const { text, quoted } of phrases) {
    const item = list.appendChild(element("li", text));
    item.dataset.quoted = quoted;
  }
  return list;
}

/** Lists the evidence and marks it among the user's keyphrases, which it names as the prompt quotes them. */
function showRationale(rationale) {
  const items = [...document.querySelectorAll("[data-quoted]")];
  const named = new Set(rationale.split(";").map((phrase) => phrase.trim()).filter(Boolean));
  for (const phrase of named) {
    const meant = items.filter((item) => item.dataset.quoted === phrase);
    for (const item of meant) item.replaceChildren(element("mark", item.textContent));
    byId("rationale").append(element("li", meant.length ? phrase : `${phrase} (not among the keyphrases)`));
  }
  if (named.size === 0) byId("rationale").append(element("li", "no evidence named"));
  byId("evidence").hidden = false;
}

/* ---- the profile: a card for each attribute */

/** Adds an attribute's card to the page: its element, its slider, and later the model's answer. */
function addCard(attribute) {
  const root = byId("attribute").content.cloneNode(true).querySelector("article");
  const slider = root.querySelector("input");
  root.querySelector("h3").textContent = attribute.name.replaceAll("_", " ");
  root.querySelector("summary").textContent = `${attribute.tags.length} possible tags`;
  root.querySelector(".tags").textContent = attribute.tags.join(", ");
  slider.setAttribute("aria-label", `τ for ${attribute.name}`);
  drawCurves(root, attribute.measured);
  byId("attributes").append(root);
  return { attribute, root, slider, answer: null };
}

function showAnswer(card, answer) {
  card.answer = answer;
  const said = "level" in answer;
  card.root.querySelector(".tag").textContent = answer.tag ?? "no tag";
  card.root.querySelector(".sureness").textContent = said ? `level ${answer.level}, score ${answer.score.toFixed(2)}` : "";
  const steps = card.root.querySelector(".steps");
  steps.setAttribute("aria-label", said ? `level ${answer.level} of 5` : "no level");
  [...steps.children].forEach((step, place) => step.classList.toggle("on", said && place < answer.level));
  showThreshold(card);
}

/** Everything of a card that follows its slider. */
function showThreshold(card) {
  const threshold = card.slider.valueAsNumber;
  const [outcome, sentence] = judge(card.answer, threshold, isAdjustable(card));
  card.root.classList.toggle("accepted", outcome === "accepted");
  card.root.classList.toggle("withheld", outcome === "withheld");
  card.root.querySelector(".outcome").textContent = sentence;
  card.slider.setAttribute("aria-valuetext", `τ ${threshold}. ${sentence}`);
  const measured = card.attribute.measured[threshold - 1];
  for (const rate of ["precision", "recall", "coverage"]) {
    card.root.querySelector(`dd.${rate}`).textContent = percent(measured[rate]);
  }
  card.root.querySelector(".marker").setAttribute("d", `M${across(threshold)} 0V64`);
}

/** An attribute of an unjudged model may have no threshold at all: then nothing that is said of it is accepted. */
const isAdjustable = (card) => card.attribute.threshold !== null;

function judge(answer, threshold, adjustable) {
  if (answer === null) return ["unasked", ""];
  if (!("level" in answer)) return ["silent", `– ${answer.reason}`];
  if (!adjustable) return ["withheld", `✕ ${answer.reason}`];
  if (answer.level >= threshold) return ["accepted", "✓ accepted"];
  return ["withheld", `✕ withheld: below τ\u00a0${threshold}`];
}

/* ---- the sliders */

/** One slider for each card and one for all; `tau` is where all begin, null for the model's own thresholds. */
function connectSliders(cards, tau) {
  const all = byId("all");
  const set = (card, threshold) => { card.slider.value = threshold ?? 5; showThreshold(card); };
  const moveAll = () => {
    for (const card of cards.filter(isAdjustable)) set(card, all.value);
    all.name = "tau"; // goes along when another user is shown
    describeAll(cards);
  };
  const reset = () => {
    for (const card of cards) set(card, card.attribute.threshold);
    all.name = "";
    describeAll(cards);
  };
  for (const card of cards) {
    card.slider.disabled = !isAdjustable(card);
    card.slider.addEventListener("input", () => { showThreshold(card); describeAll(cards); });
  }
  all.addEventListener("input", moveAll);
  byId("reset").addEventListener("click", reset);
  reset();
  if (tau !== null) { all.value = tau; moveAll(); }
}

function describeAll(cards) {
  const different = new Set(cards.filter(isAdjustable).map((card) => card.slider.value));
  const [first] = different;
  if (different.size === 1) byId("all").value = first;
  byId("all-value").textContent = different.size === 1 ? `τ ${first}` : "each its own";
}

/* ---- small curves */

function drawCurves(root, measured) {
  const figure = root.querySelector(".scale svg");
  for (const rate of ["precision", "recall"]) {
    const points = measured.filter((point) => point[rate] !== null);
    const path = points.map((point) => `${across(point.tau)} ${down(point[rate])}`).join("L");
    figure.querySelector(`.${rate}`).setAttribute("d", path && `M${path}`);
  }
  const spoken = measured.map((point) => `τ ${point.tau}: ${percent(point.precision)}, ${percent(point.recall)}`);
  figure.setAttribute("aria-label", `Precision and recall. ${spoken.join("; ")}`);
}

const across = (tau) => (CURVE.width * (tau - 0.5)) / 5;
const down = (rate) => CURVE.bottom - rate * (CURVE.bottom - CURVE.top);
const percent = (rate) => (rate === null ? "not measured" : `${Math.round(100 * rate)} %`);

/* ---- helpers */

function say(sentence) {
  byId("message").textContent = sentence;
}

function element(tag, text, className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

main().catch((error) => say(error.message));
