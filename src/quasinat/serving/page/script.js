"use strict";
// The page asks `POST v1/demo` after every change and shows the answer. One request is under way at a time: a change
// meanwhile makes its answer stale, which is dropped, and the newest state is asked for next.

const WAIT = 220; // milliseconds without a change before a request goes out
const RANGES = { linf: { max: 32, value: 8 }, dissimilarity: { max: 30, value: 3 } }; // in 255ths and in hundredths
const TITLES = {
  none: "none", fgsm: "FGSM", bim: "BIM", pgd: "PGD", deepfool: "DeepFool", "carlini-wagner": "Carlini–Wagner",
  "random-noise": "random noise",
};
const BLIND = ["none", "random-noise"]; // attacks that look at no classifier

const at = (id) => document.getElementById(id);
let settings = null;
let key = ""; // of the server, if it asks for one; kept here alone
let image = null; // { content, name }
let asked = 0; // the number of the newest state
let timer = 0;
let underWay = false;

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function picture(source, alternative, kind = "") {
  return make("img", { src: source, alt: alternative, className: `pixels ${kind}`.trim() });
}

const words = (name) => name.replaceAll("_", " ");
const number = (value, digits = 3) => String(Number(value.toPrecision(digits)));
const percent = (share) => `${share < 0.0005 || share > 0.0995 ? Math.round(100 * share) : (100 * share).toFixed(1)} %`;
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

function budgetInWords(text) {
  const [measure, size] = text.split(":");
  return measure === "linf" ? `L∞ ${size}` : `L2-dissimilarity ${size}`;
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
  if (image) timer = setTimeout(ask, wait);
}

async function ask() {
  if (underWay) return; // whoever is under way asks again
  underWay = true;
  const number = asked;
  busy(true);
  let answer = null;
  let problem = null;
  try {
    answer = await post();
  } catch (error) {
    problem = error.message;
  }
  underWay = false;
  if (number !== asked) {
    clearTimeout(timer);
    timer = setTimeout(ask, 0);
    return;
  }
  busy(false);
  at("error").hidden = problem === null;
  at("error").textContent = problem ?? "";
  at("answer").classList.toggle("stale", problem !== null);
  if (problem === null) {
    show(answer);
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
  const said = [body?.detail, body?.error, body?.remedy].filter((each) => typeof each === "string").join("; ");
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
  try {
    const response = await fetch(`page/photographs/${name}`);
    if (!response.ok) throw new Error();
    await take(await response.blob(), words(name), button);
  } catch {
    at("error").textContent = `The photograph ${words(name)} could not be fetched.`;
    at("error").hidden = false;
  }
}

// Showing.

function show(answer) {
  at("answer").hidden = false;
  at("status").textContent = verdict(answer);
  const { width, height, given_width: before, given_height: high } = answer.image;
  const scaled = width !== before || height !== high;
  at("scaled").textContent = `${image.name}: ${before} × ${high} pixels` + (scaled ? `, scaled down to ${width} × ${height}` : "");
  at("pictures").replaceChildren(...figures(answer));
  at("codes").replaceChildren(
    codes("Of the attacked image", answer.codes.attacked, answer.pictures.projected, "T(x′)"),
    codes("Of the clean image", answer.codes.clean, answer.pictures.projected_clean, "T(x)"),
  );
}

function verdict(answer) {
  const { attack, predictions } = answer;
  if (attack.name === "none") return "Not attacked.";
  const target = attack.threat ? ` on ${settings.threats[attack.threat].on}` : "";
  const steps = attack.options.steps ? `, ${attack.options.steps * (attack.options.search_steps ?? 1)} steps` : "";
  const opening = `${capital(TITLES[attack.name])} of ${budgetInWords(attack.budget)}${target}${steps}.`;
  const outcomes = Object.entries(predictions).filter(([, rows]) => rows.clean).map(([who, rows]) => {
    const [before, after] = [rows.clean[0], rows.attacked[0]];
    return before.class === after.class ? `the ${who} classifier still says ${after.label}`
      : `the ${who} classifier says ${after.label} instead of ${before.label}`;
  });
  const stands = predictions.defended.clean && predictions.defended.clean[0].class === predictions.defended.attacked[0].class;
  const caution = !stands ? "" : attack.threat === "gray-box" ? " That is not robustness: the attack never saw the layer. Try white-box."
    : attack.threat ? " One attack that failed proves nothing." : "";
  return `${opening} ${outcomes.length ? capital(outcomes.join("; ")) + "." : ""}${caution}`;
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);

function figures(answer) {
  const { pictures, predictions, attack } = answer;
  const factor = answer.difference_factor;
  const sizes = make("dl", { className: "sizes" },
    make("dt", { textContent: "largest change" }), make("dd", { textContent: `${(255 * attack.linf).toFixed(1)}/255` }),
    make("dt", { textContent: "L2-dissimilarity" }),
    make("dd", { textContent: attack.dissimilarity === null ? "infinite" : number(attack.dissimilarity) }));
  const note = make("p", { textContent: "This is what it reads when it is given x′; see there." });
  return [
    figure("Clean", "x", picture(pictures.clean, "the clean image"), says("Plain", predictions.plain.clean),
      says("Defended", predictions.defended.clean)),
    figure("Attacked", "x′", picture(pictures.attacked, "the attacked image"),
      says("Plain", predictions.plain.attacked, predictions.plain.clean),
      says("Defended", predictions.defended.attacked, predictions.defended.clean)),
    figure("Difference", factor > 1 ? `times ${factor}` : "x′ − x",
      picture(pictures.difference, `the attacked less the clean image, times ${factor}, grey where nothing changed`), sizes),
    figure("Projected", "T(x′)", picture(pictures.projected, "the attacked image as the layer passes it on"),
      says("Plain", predictions.plain.projected, predictions.plain.clean),
      predictions.defended.clean ? make("div", { className: "says" }, make("p", { className: "who", textContent: "Defended" }), note) : null),
  ];
}

function figure(title, symbol, ...parts) {
  const caption = make("figcaption", {}, `${title} `, make("span", { textContent: symbol }));
  return make("figure", {}, caption, ...parts.filter(Boolean));
}

function says(who, rows, before = null) {
  if (!rows) return null;
  const moved = before !== null && rows[0].class !== before[0].class;
  const items = rows.map((row, place) => {
    const amount = make("span", { className: "amount" });
    amount.style.width = `${100 * row.probability}%`;
    return make("li", { className: moved && place === 0 ? "changed" : "" }, amount,
      make("span", { textContent: row.label }), make("span", { textContent: percent(row.probability) }));
  });
  const heading = make("p", { className: "who", textContent: moved ? `${who}, no longer ${before[0].label}` : who });
  return make("div", { className: "says" }, heading, make("ol", {}, ...items));
}

function codes(title, coded, projection, symbol) {
  const share = (100 * coded.atoms) / coded.codes;
  const parts = [
    coded.stratum === null ? "one dictionary" : `stratum ${coded.stratum}, ${percent(coded.margin)} margin of the vote`,
    `${coded.atoms.toLocaleString("en")} of ${coded.codes.toLocaleString("en")} codes are not zero (${number(share, 2)} %)`,
    coded.psnr === null ? `${symbol} is the image` : `PSNR of ${symbol} ${coded.psnr.toFixed(1)} dB`,
  ];
  const whole = make("li", { className: "whole" }, picture(projection, `${symbol}, all codes together`), symbol);
  const items = coded.strongest.map((one) => make("li", {},
    picture(one.tile, `filter ${one.filter}`, "tile"),
    picture(one.map, `where filter ${one.filter} is active`, "map"),
    make("span", { textContent: `no. ${one.filter}, ${one.atoms} ×` })));
  return make("div", {},
    make("h3", { textContent: title }), make("p", { className: "numbers", textContent: parts.join(" · ") }),
    make("ul", { className: "atoms" }, whole, ...items));
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
