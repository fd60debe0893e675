// Words in the box: what is typed there, which encoder answers it, and the words' share where they
// stand beside a picture.

const $ = (id) => document.getElementById(id);
const EVEN = 0.5; // as the server takes it

export const SILENT = { text: "", weight: EVEN }; // in the state: no words
export const quoted = (text) => `“${text}”`;

export function setUpWords(facts, ask, changed) {
  const isOfTexts = facts.modality === "text";
  $("drop").hidden = isOfTexts;
  $("say").hidden = !facts.words && !facts.finds;
  if (isOfTexts) $("weighed").textContent = "Item";
  $("text").placeholder = isOfTexts ? "Words" : facts.words ? "Words, an image, or both" : "Words, or an image";
  $("answers").textContent = answering(facts, isOfTexts);
  const typed = () => $("text").value.trim();
  $("say").addEventListener("submit", (event) => {
    event.preventDefault();
    ask(typed());
  });
  $("text").addEventListener("search", () => typed() || ask("")); // its cross, or Escape
  $("weight").addEventListener("input", showShare);
  $("weight").addEventListener("change", () => changed({ weight: Number($("weight").value) }));
}

function answering(facts, isOfTexts) {
  if (isOfTexts) return `${facts.encoder} answers.`;
  if (facts.words) return `${facts.encoder} answers words and images.`;
  const written = facts.finds ? "; these find what is written in labels, captions and names" : "";
  return `${facts.encoder} answers images. It knows no words${written}.`;
}

// Whether words are looked for in what is written, since the encoder knows none.
export const isWritten = (facts, state) => Boolean(state.text && !facts.words);

const FINDERS = { words: "written words", both: "its vector and written words" };
export const foundIn = (item) => FINDERS[item.found_in] ?? null;

export function showWords(facts, state) {
  $("text").value = state.text;
  $("weight").value = state.weight;
  $("weigh").hidden = !areBeside(facts, state);
  showShare();
}

function showShare() {
  const share = `${Math.round(100 * $("weight").value)}%`;
  $("share").textContent = share;
  $("weight").setAttribute("aria-valuetext", `${share} words`);
}

const areBeside = (facts, state) => Boolean(facts?.words && state.text && (state.upload || state.item));

// The words as fields of a request, or of the address.
export function saying(facts, state) {
  if (!state.text) return {};
  return areBeside(facts, state) ? { text: state.text, weight: state.weight } : { text: state.text };
}

// The words that an address names.
export function said(fields) {
  const weight = Number(fields.get("weight") ?? EVEN);
  return { text: (fields.get("text") ?? "").slice(0, $("text").maxLength), weight: weight >= 0 && weight <= 1 ? weight : EVEN };
}
