// Elements, numbers and names, as both halves of the page write them.

export const TITLES = {
  none: "none", fgsm: "FGSM", bim: "BIM", pgd: "PGD", deepfool: "DeepFool", "carlini-wagner": "Carlini–Wagner",
  "random-noise": "random noise",
};

export const at = (id) => document.getElementById(id);
export function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

export function picture(source, alternative, kind = "") {
  return make("img", { src: source, alt: alternative, className: `pixels ${kind}`.trim() });
}

export const words = (name) => name.replaceAll("_", " ");
export const number = (value, digits = 3) => String(Number(value.toPrecision(digits)));
export const percent = (share) => `${share < 0.0005 || share > 0.0995 ? Math.round(100 * share) : (100 * share).toFixed(1)} %`;
export const capital = (text) => text[0].toUpperCase() + text.slice(1);

export function budgetInWords(text) {
  const [measure, size] = text.split(":");
  return measure === "linf" ? `L∞ ${size}` : `L2-dissimilarity ${size}`;
}
