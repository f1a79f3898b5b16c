// An answer of `POST v1/demo` as pictures, labels and codes.

import { TITLES, at, budgetInWords, capital, make, number, percent, picture } from "./words.js";

// Shows an answer; `threats` are those of the settings, `name` is the image's.
export function show(answer, threats, name) {
  at("answer").hidden = false;
  at("status").textContent = verdict(answer, threats);
  const { width, height, given_width: before, given_height: high } = answer.image;
  const scaled = width !== before || height !== high;
  at("scaled").textContent = `${name}: ${before} × ${high} pixels` + (scaled ? `, scaled down to ${width} × ${height}` : "");
  at("pictures").replaceChildren(...figures(answer));
  at("codes").replaceChildren(
    codes("Of the attacked image", answer.codes.attacked, answer.pictures.projected, "T(x′)"),
    codes("Of the clean image", answer.codes.clean, answer.pictures.projected_clean, "T(x)"),
  );
}

function verdict(answer, threats) {
  const { attack, predictions } = answer;
  if (attack.name === "none") return "Not attacked.";
  const target = attack.threat ? ` on ${threats[attack.threat].on}` : "";
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
