// The page asks `POST v1/demo` after every change and shows the answer. One request is under way at a time: a change
// meanwhile makes its answer stale, which is dropped, and the newest state is asked for next.

import { show } from "./show.js";
import { TITLES, at, budgetInWords, capital, make, number, words } from "./words.js";

const WAIT = 220; // milliseconds without a change before a request goes out
const RANGES = { linf: { max: 32, value: 8 }, dissimilarity: { max: 30, value: 3 } }; // in 255ths and in hundredths
const BLIND = ["none", "random-noise"]; // attacks that look at no classifier

let settings = null;
let key = ""; // of the server, if it asks for one; kept here alone
let image = null; // { content, name }
let asked = 0; // the number of the newest state
let timer = 0;
let underWay = false;

const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`)?.value;

function lambda() {
  const place = Number(at("lambda").value);
  const { learned, reach } = settings.lambda;
  return place === 0 ? learned : Number((learned * reach ** (place / 20)).toPrecision(6));
}

function budget() {
  const size = Number(at("strength").value);
  return chosen("measure") === "linf" ? `linf:${size}/255` : `dissimilarity:${size / 100}`;
}

// What the controls say of themselves.

function describe() {
  const { learned, reach } = settings.lambda;
  const blind = BLIND.includes(at("attack").value);
  for (const radio of document.getElementsByName("threat")) {
    radio.disabled = blind || !settings.threats[radio.value].here;
  }
  at("strength").disabled = at("attack").value === "none";
  const strength = budgetInWords(budget()).replace(/^\S+ /, "");
  at("strength-value").value = strength;
  at("strength").setAttribute("aria-valuetext", budgetInWords(budget()));
  const same = Number(at("lambda").value) === 0;
  at("lambda-value").value = number(lambda()) + (same ? ", as learned" : "");
  at("lambda").setAttribute("aria-valuetext", `${number(lambda())}${same ? ", the learned value" : ""}`);
  at("reset").hidden = same;
  at("lambda-low").textContent = number(learned / reach);
  at("lambda-learned").textContent = `learned ${number(learned)}`;
  at("lambda-high").textContent = number(learned * reach);
}

// Asking.

function changed(wait = WAIT) {
  asked += 1;
  describe();
  clearTimeout(timer);
  if (!image) return;
  busy(true); // until what is shown is what is asked for
  timer = setTimeout(ask, wait);
}

async function ask() {
  if (underWay) return; // whoever is under way asks again
  underWay = true;
  const state = asked;
  let answer = null;
  let problem = null;
  try {
    answer = await post();
  } catch (error) {
    problem = error.message;
  }
  underWay = false;
  if (state !== asked) {
    clearTimeout(timer);
    timer = setTimeout(ask, 0);
    return;
  }
  busy(false);
  at("error").hidden = problem === null;
  at("error").textContent = problem ?? "";
  at("answer").classList.toggle("stale", problem !== null);
  if (problem === null) {
    show(answer, settings.threats, image.name);
  } else {
    at("status").textContent = at("answer").hidden ? "" : "What stands below is the last answer.";
  }
}

async function post() {
  const query = { attack: at("attack").value, budget: budget(), lambda: lambda(), side: at("side").value };
  const threat = chosen("threat");
  if (threat && !BLIND.includes(query.attack)) query.threat = threat;
  return fetched(`v1/demo?${new URLSearchParams(query)}`, { method: "POST", body: image.content });
}

async function fetched(address, options = {}) {
  let response;
  try {
    response = await fetch(address, { ...options, headers: key ? { Authorization: `Bearer ${key}` } : {} });
  } catch {
    throw new Error("The server does not answer; is it still running?");
  }
  const body = await response.json().catch(() => null);
  at("key-form").hidden = response.status !== 401;
  if (response.ok && body) return body;
  const said = [body?.error, body?.remedy].filter((each) => typeof each === "string").join("; ");
  throw new Error(said ? `${capital(said)}.` : `The server answered ${response.status}.`);
}

function busy(now) {
  at("results").classList.toggle("busy", now);
  at("answer").setAttribute("aria-busy", String(now)); // not of the status, which has to be read out meanwhile
  at("answer").classList.toggle("stale", now);
  if (!now) return;
  const attack = at("attack").value;
  at("status").textContent = BLIND.includes(attack) ? "Projecting …" : `Attacking with ${TITLES[attack]} …`;
}

async function take(content, name, pressed = null) {
  image = { content, name };
  for (const button of at("photographs").children) button.setAttribute("aria-pressed", String(button === pressed));
  changed(0);
}

async function takeSample(button) {
  const name = button.dataset.name;
  busy(true);
  try {
    const response = await fetch(`page/photographs/${name}`);
    if (!response.ok) throw new Error();
    await take(await response.blob(), words(name), button);
  } catch {
    busy(false);
    at("error").textContent = `The photograph ${words(name)} could not be fetched.`;
    at("error").hidden = false;
  }
}

// The start.

function fill(kept) {
  settings = kept;
  at("controls").hidden = false;
  const { layer } = settings;
  at("facts").textContent = [
    layer.strata > 1 ? `${layer.strata} strata` : "one dictionary",
    `${layer.filters} filters of ${layer.size} × ${layer.size} pixels${layer.strata > 1 ? " each" : ""}`,
    layer.channels === 1 ? "grey images" : "colour images",
    `λ ${number(settings.lambda.learned)}`,
  ].join(" · ");
  const option = (value, text, selected) => make("option", { value, textContent: text, selected });
  const free = Object.values(settings.threats).every((threat) => !threat.here);
  at("attack").append(...settings.attacks.filter((name) => !free || BLIND.includes(name))
    .map((name) => option(name, TITLES[name] ?? name, name === (free ? "random-noise" : "pgd"))));
  at("side").append(...settings.sides.map((side, place) => option(side, `${side} pixels`, place === 0)));
  const first = [...document.getElementsByName("threat")].find((radio) => settings.threats[radio.value].here);
  if (first) first.checked = true;
  at("missing").textContent = settings.missing ?? "";
  at("missing").hidden = settings.missing === null;
  if (settings.labels && !free) {
    at("classes").textContent = `The classifiers know ${settings.labels.length} classes only (${settings.labels.slice(0, 12).join(", ")}`
      + `${settings.labels.length > 12 ? " …" : ""}), and of anything else they still name one. An attack leads away from the class that its classifier gives the clean image.`;
    at("classes").hidden = false;
  }
  at("photographs").append(...settings.photographs.map((name) => {
    const thumbnail = make("img", { src: `page/photographs/${name}`, alt: words(name), width: 48, height: 48 });
    const button = make("button", { type: "button", title: words(name) }, thumbnail);
    button.dataset.name = name;
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => takeSample(button));
    return button;
  }));
  describe();
}

function rescale() {
  const { max, value } = RANGES[chosen("measure")];
  Object.assign(at("strength"), { max, value });
}

function listen() {
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  at("controls").addEventListener("input", (event) => {
    if (event.target.name === "measure") rescale();
    if (event.target.id !== "file") changed();
  });
  at("file").addEventListener("change", () => {
    const [file] = at("file").files;
    if (file) take(file, file.name);
    at("file").value = "";
  });
  at("lambda").addEventListener("input", () => changed());
  at("reset").addEventListener("click", () => {
    at("lambda").value = 0;
    at("lambda").focus();
    changed(0);
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragging");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    const [file] = event.dataTransfer.files;
    if (file) take(file, file.name);
  });
}

async function start() {
  at("error").hidden = true;
  at("results").classList.add("busy");
  try {
    fill(await fetched("v1/demo"));
  } catch (error) {
    at("error").textContent = error.message;
    at("error").hidden = false;
    at("status").textContent = "";
    at("results").classList.remove("busy");
    return;
  }
  listen();
  const [first] = at("photographs").children;
  if (first) await takeSample(at("photographs").querySelector('[data-name="chelsea"]') ?? first);
}

at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = at("key").value.trim();
  if (settings) changed(0);
  else start();
});

start();
