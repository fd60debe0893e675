// The page of a gallery. What is asked (an uploaded image, an item, or nothing: all items), the
// filters and the offset make the state; every change of it asks the API and draws the answer. The
// address holds the state, so that a reload, a step back and a link find the same page.

import { clusterCard, OUTSIDE, showGroups } from "./clusters.js";
import { pairOf } from "./explaining.js";
import { finder, showImagined } from "./imagining.js";
import { element, picture } from "./pictures.js";
import { chooseRegion, watchRegion } from "./region.js";
import { fromFields, inAddress, OFF, setUpSwitches, showSwitches, switchedOn } from "./switches.js";
import { showTranslated } from "./translating.js";
import { find, forgetOld, keep } from "./uploads.js";
import { foundIn, isWritten, quoted, said, saying, setUpWords, showWords, SILENT } from "./words.js";

const K = 24;
const FRESH = { upload: null, item: null, name: null, region: null, ...OUTSIDE, ...SILENT }; // nothing is asked
const NOTHING = { ...FRESH, ...OFF, label: "", filters: [], offset: 0 };
const $ = (id) => document.getElementById(id);
const state = { ...NOTHING }; // `upload` is the key of a file in uploads.js
let file = null; // that file
let running = null; // aborts the request before this one
let gallery = null; // what the gallery is
let shown = []; // the items on the page
let enlarged = -1; // the position of the one in the dialog

async function call(path, options = {}) {
  const response = await fetch(path, options).catch((error) => {
    throw error.name === "AbortError" ? error : new Error("the server does not answer");
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.detail ?? `the server says ${response.status}`);
  return answer;
}

function conditions() {
  const chosen = state.label ? [{ column: "label", operator: "=", value: state.label }] : [];
  return [...chosen, ...state.filters];
}

function request(signal) {
  const fields = { k: K, offset: state.offset, filters: JSON.stringify(conditions()), ...switchedOn(gallery, state), ...saying(gallery, state) };
  if (state.region && (state.upload || state.item)) fields.region = state.region;
  if (state.upload) {
    const body = new FormData();
    for (const [name, value] of Object.entries(fields)) body.append(name, value);
    body.append("image", file);
    return call("api/search", { method: "POST", body, signal });
  }
  const listed = state.walk ? "api/clusters" : `api/clusters/${state.cluster}/items`;
  if (state.walk || state.cluster !== null) return call(`${listed}?${new URLSearchParams(fields)}`, { signal });
  const alone = isWritten(gallery, state) ? "api/find" : state.text ? "api/search" : "api/items";
  const path = state.item ? `api/items/${state.item}/similar` : alone;
  return call(`${path}?${new URLSearchParams(fields)}`, { signal });
}

// True if there is an answer, false if there is none, null if another request went first.
async function refresh() {
  running?.abort();
  const mine = (running = new AbortController());
  const started = performance.now();
  $("results").ariaBusy = true;
  try {
    const answer = await request(mine.signal);
    if (mine !== running) return null;
    draw(answer, performance.now() - started);
  } catch (error) {
    if (error.name === "AbortError" || mine !== running) return null; // the next is under way
    say(error.message, true);
  }
  $("results").ariaBusy = false;
  return !$("status").classList.contains("bad");
}

function say(text, isBad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", isBad);
}

function draw(answer, waited) {
  shown = answer.matches ?? [];
  showTranslated(answer.translated);
  showImagined(answer.imagined);
  const { hybrid } = switchedOn(gallery, state);
  for (const item of shown) item.finder = finder(item, answer.imagined) ?? (hybrid ? foundIn(item) : null);
  const cards = answer.clusters?.map((each) => clusterCard(each, openCluster)) ?? shown.map(card);
  $("results").replaceChildren(...cards);
  const n = cards.length;
  showGroups(state, answer.cluster ?? null, call);
  $("range").textContent = n ? `${answer.offset + 1} to ${answer.offset + n}` : "";
  $("previous").disabled = answer.offset === 0;
  $("next").disabled = !answer.more;
  const t = answer.timing ?? {};
  if (answer.clusters) say("Click a cluster to see its items, the most typical first.");
  else if (!n) say("Nothing was found; take a condition away.");
  else if (t.search_ms === undefined) say(`Click ${gallery.modality === "text" ? "a text" : "an image"} to find the ones like it.`);
  else {
    const encoder = t.encode_ms >= 0.05 ? `encoder ${t.encode_ms.toFixed(1)} ms, ` : "";
    say(`${encoder}search ${t.search_ms.toFixed(1)} ms, ${waited.toFixed(0)} ms in all`);
  }
}

function card(item, position) {
  const title = item.label ?? item.caption ?? item.name;
  // What stands below the picture is not said twice.
  const [frame, image] = picture(item.caption && item.caption !== title ? item.caption : "");
  image.loading = "lazy";
  image.src = item.picture;
  const line = element("span", { className: "line" }, element("b", { textContent: title }));
  const parts = [frame, line, element("span", { className: "name", textContent: item.name, title: item.name })];
  if (item.score !== null) {
    line.append(element("span", { className: "score", textContent: item.score.toFixed(4) }));
    if (gallery.metric === "cosine" && !isWritten(gallery, state)) parts.splice(1, 0, bar(item.score));
  }
  if (item.finder) parts.push(element("span", { className: "finder", textContent: `found by ${item.finder}` }));
  const search = element("button", { type: "button", className: "card", title: "Find the ones like this" }, ...parts);
  search.addEventListener("click", () => searchItem(item));
  const more = element("button", { type: "button", className: "more", textContent: "i", ariaLabel: `About ${item.name}` });
  more.addEventListener("click", () => enlarge(position));
  return element("li", {}, search, more);
}

function bar(score) {
  const filled = element("i");
  filled.style.width = `${Math.max(0, Math.min(1, score)) * 100}%`;
  return element("span", { className: "bar" }, filled);
}

function enlarge(position) {
  const item = shown[position];
  if (!item) return;
  enlarged = position;
  const [frame, image] = picture(item.caption ?? item.name);
  image.src = `${item.picture}?size=1024`;
  $("large-picture").replaceChildren(frame);
  const size = item.width ? `${item.width} × ${item.height}` : null;
  const score = item.score === null ? null : item.score.toFixed(6);
  const facts = { Name: item.name, Label: item.label, Caption: item.caption, Score: score, "Found by": item.finder, Size: size, ...item.metadata };
  $("large-facts").replaceChildren(
    ...Object.entries(facts).flatMap(([name, value]) =>
      value === null || value === "" ? [] : [element("dt", { textContent: name }), element("dd", { textContent: value })]),
  );
  $("large-picture").classList.remove("pair");
  $("large-reason").textContent = "";
  $("large-why").ariaPressed = "false";
  $("large-why").hidden = !(hasPicture() || (state.text && gallery.words)) || gallery.modality !== "image";
  if (!$("large").open) $("large").showModal();
}

const hasPicture = () => Boolean(state.upload || state.item);
const querySource = () => (state.upload ? $("query").src : `api/items/${state.item}/picture?size=1024`);

// Lay the heat over the pair in the dialog, or take it away.
async function why() {
  const [item, asked] = [shown[enlarged], state.upload ? { file } : { item: state.item }];
  if ($("large-why").hidden || !item) return;
  if ($("large-why").ariaPressed === "true") return enlarge(enlarged);
  $("large-why").ariaPressed = "true";
  $("large-reason").textContent = "Looking at what matched …";
  try {
    const source = hasPicture() ? querySource() : null;
    const [frames, reason] = await pairOf({ ...asked, region: state.region, source, words: saying(gallery, state) }, item, call);
    if (shown[enlarged] !== item || $("large-why").ariaPressed !== "true") return;
    $("large-picture").replaceChildren(...frames);
    $("large-picture").classList.add("pair");
    const other = switchedOn(gallery, state).translate ? "the translated one" : item.found_by ? item.finder : "";
    $("large-reason").textContent = reason + (other && `; with the picture itself, not with ${other}`);
  } catch (error) {
    $("large-why").ariaPressed = "false";
    $("large-reason").textContent = `No explanation: ${error.message}`;
  }
}

// --- what is asked ------------------------------------------------------------------------------

function showAsked() {
  const isAsked = hasPicture();
  if ($("query").src.startsWith("blob:")) URL.revokeObjectURL($("query").src);
  $("query").hidden = !isAsked;
  $("asked").hidden = !isAsked && !state.text;
  $("hint").hidden = isAsked;
  $("unseen").hidden = true;
  const named = isAsked ? (state.region ? "a part of " : "") + (state.name ?? "") : null;
  $("asked-as").textContent = isWritten(gallery, state) ? "Written:" : "Most like";
  $("asked-name").textContent = [named, state.text && quoted(state.text)].filter((part) => part).join(" and ");
  $("choose-part").hidden = !isAsked || gallery.modality !== "image";
  $("file").value = ""; // so that the same file can be chosen again
  if (state.upload) $("query").src = URL.createObjectURL(file);
  else if (state.item) $("query").src = `api/items/${state.item}/picture`;
  else $("query").removeAttribute("src");
}

function address() {
  const fields = new URLSearchParams();
  for (const name of ["upload", "item", "label", "offset", "region"]) if (state[name]) fields.set(name, state[name]);
  if (state.cluster !== null) fields.set("cluster", state.cluster);
  if (state.walk) fields.set("walk", "1");
  for (const [name, value] of [...inAddress(state), ...Object.entries(saying(gallery, state))]) fields.set(name, value);
  if (state.filters.length) fields.set("filters", JSON.stringify(state.filters));
  return fields.size ? `#${fields}` : location.pathname + location.search;
}

function showState() {
  showAsked();
  showSwitches(gallery, state);
  showWords(gallery, state);
  const label = $("label");
  const isKnown = [...label.options].some((option) => option.value === state.label);
  if (!isKnown) label.append(element("option", { value: state.label, textContent: state.label }));
  label.value = state.label;
  drawFilters();
}

async function go(changes, remember = true) {
  Object.assign(state, { offset: 0 }, changes);
  showState();
  if (remember) history.pushState(null, "", address());
  return await refresh();
}

const clear = () => go(FRESH);
const walk = (where) => go({ ...FRESH, ...where });
// Words stand beside a picture where the encoder knows words; else they ask alone.
const askWords = (text) => go({ ...(gallery.words ? OUTSIDE : FRESH), text });
const choosePart = () => chooseRegion(querySource(), state.region, (region) => go({ region }));

function openCluster(cluster) {
  walk({ cluster });
  scrollTo({ top: 0, behavior: "smooth" });
}

function searchItem(item) {
  go({ ...FRESH, item: item.id, name: item.name });
  scrollTo({ top: 0, behavior: "smooth" });
}

async function searchFile(chosen) {
  if (!chosen || $("drop").hidden) return;
  const most = gallery.upload_bytes;
  if (chosen.type && !chosen.type.startsWith("image/")) return say(`${chosen.name} is no image`, true);
  if (chosen.size > most) return say(`${chosen.name} has ${chosen.size.toLocaleString()} bytes, at most ${most.toLocaleString()} go`, true);
  const before = [{ ...state }, file];
  file = chosen;
  const upload = await keep(chosen);
  const words = gallery.words ? { text: state.text, weight: state.weight } : {};
  const found = await go({ ...FRESH, ...words, upload, name: chosen.name }, false);
  if (found) history.pushState(null, "", address());
  if (found !== false || state.upload !== upload) return;
  Object.assign(state, before[0]); // it was refused: what was there before is still there
  file = before[1];
  showState();
}

async function fromAddress() {
  const fields = new URLSearchParams(location.hash.slice(1));
  const whole = (name) => Math.max(0, Math.trunc(Number(fields.get(name)))) || 0;
  const asked = { ...NOTHING, ...fromFields(fields), ...said(fields), walk: fields.has("walk"), item: whole("item") || null, label: fields.get("label") ?? "", offset: whole("offset") };
  try {
    asked.filters = JSON.parse(fields.get("filters") ?? "[]");
    if (!Array.isArray(asked.filters)) asked.filters = [];
  } catch {} // somebody wrote it by hand
  if (fields.has("cluster")) asked.cluster = whole("cluster");
  const upload = fields.get("upload");
  const found = upload && (await find(upload));
  if (found) {
    file = found;
    Object.assign(asked, { upload, name: found.name });
  }
  const region = fields.get("region") ?? "";
  if (/^[\d.]+(,[\d.]+){3}$/.test(region) && (asked.upload || asked.item)) asked.region = region;
  asked.name ??= asked.item && `item ${asked.item}`;
  await go(asked, false);
  if (upload && !found) say("The image of this search is only in the browser that chose it; choose it again.", true);
  if (!asked.item) return;
  const item = await call(`api/items/${asked.item}`).catch(() => null); // the search says what is wrong
  if (item && state.item === asked.item) {
    state.name = item.name;
    showAsked();
  }
}

// --- filters ------------------------------------------------------------------------------------

function addFilter() {
  const [column, operator] = [$("column").value, $("operator").value];
  const text = $("value").value.trim();
  const isNumber = text !== "" && Number.isFinite(Number(text));
  const kind = operator === "contains" ? "text" : gallery.kinds[column];
  const isEmptiness = operator.startsWith("is ");
  const isWrong = !isEmptiness && kind === "number" && !isNumber;
  $("wrong").textContent = isWrong ? `${column} holds numbers; ${text ? `“${text}” is none` : "give one"}` : "";
  $("value").ariaInvalid = isWrong;
  if (isWrong) return $("value").focus();
  const value = isEmptiness ? null : isNumber && kind !== "text" ? Number(text) : text;
  $("value").value = "";
  go({ filters: [...state.filters, { column, operator, value }] });
}

function drawFilters() {
  $("chosen").replaceChildren(
    ...state.filters.map((filter, i) => {
      const text = `${filter?.column} ${filter?.operator} ${filter?.value ?? ""}`.trim();
      const remove = element("button", { type: "button", textContent: `${text} ✕`, title: "Take this condition away" });
      remove.addEventListener("click", () => go({ filters: state.filters.filter((_, j) => j !== i) }));
      return element("li", {}, remove);
    }),
  );
}

async function page(step) {
  await go({ offset: Math.max(0, state.offset + step * K) });
  $("status").scrollIntoView({ block: "nearest" });
}

// --- keyboard -----------------------------------------------------------------------------------

function moveFocus(event) {
  const cards = [...document.querySelectorAll(".card")];
  const here = cards.indexOf(document.activeElement);
  if (here < 0) return;
  const columns = getComputedStyle($("results")).gridTemplateColumns.split(" ").length;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  if (!step || !cards[here + step]) return;
  event.preventDefault();
  cards[here + step].focus();
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if ($("large").open) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) enlarge(enlarged + step);
    else if (event.key === "w") why();
    return;
  }
  if ($("part").open || event.target.matches("input:not([type=file]), select")) return;
  const here = document.activeElement.closest("#results li");
  if (event.key === "i" && here) enlarge([...$("results").children].indexOf(here));
  else if (event.key === "w" && here) {
    enlarge([...$("results").children].indexOf(here));
    why();
  } else if (event.key === "n" && !$("next").disabled) page(1);
  else if (event.key === "p" && !$("previous").disabled) page(-1);
  else if (event.key === "Escape" && (hasPicture() || state.text || state.walk || state.cluster !== null)) clear();
  else if (event.key === "/") {
    event.preventDefault(); // or it is typed there
    $("text").select();
  }
  else moveFocus(event);
}

// --- start --------------------------------------------------------------------------------------

async function start() {
  const drop = $("drop");
  $("file").addEventListener("change", () => searchFile($("file").files[0]));
  for (const name of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", name === "dragover");
      if (name === "drop") searchFile(event.dataTransfer.files[0]);
    });
  }
  document.addEventListener("paste", (event) => {
    const [pasted] = event.clipboardData.files;
    const words = event.target.matches("input, select") ? "" : event.clipboardData.getData("text").trim();
    if (pasted) searchFile(pasted);
    else if (words) askWords(words.slice(0, $("text").maxLength));
  });
  document.addEventListener("keydown", pressed);
  for (const id of ["home", "clear"]) $(id).addEventListener("click", clear);
  $("choose-part").addEventListener("click", choosePart);
  $("large-why").addEventListener("click", why);
  watchRegion();
  $("large-search").addEventListener("click", () => {
    $("large").close();
    searchItem(shown[enlarged]);
  });
  const wide = matchMedia("(min-width: 46.01rem)"); // as in page.css
  const unfold = () => ($("narrow").open = wide.matches || state.filters.length > 0);
  wide.addEventListener("change", unfold);
  unfold();
  $("query").addEventListener("load", (event) => {
    event.target.classList.toggle("small", event.target.naturalWidth <= 80); // sharp pixels
  });
  $("query").addEventListener("error", () => {
    $("unseen").hidden = !($("query").hidden = true); // browsers show no TIFF
  });
  $("label").addEventListener("change", () => go({ label: $("label").value }));
  $("operator").addEventListener("change", () => ($("value").disabled = $("operator").value.startsWith("is ")));
  $("filters").addEventListener("submit", (event) => {
    event.preventDefault();
    addFilter();
  });
  $("walk").addEventListener("click", () => walk({ walk: !state.walk }));
  $("leave").addEventListener("click", () => (state.cluster === null ? go({ within: false }) : walk({ walk: true })));
  $("previous").addEventListener("click", () => page(-1));
  $("next").addEventListener("click", () => page(1));
  addEventListener("popstate", fromAddress);
  forgetOld().catch(() => {});
  try {
    const facts = (gallery = await call("api/gallery"));
    setUpSwitches(facts, go);
    setUpWords(facts, askWords, go);
    document.title = `${facts.name} · fastretrieve`;
    $("title").textContent = facts.name;
    $("walk").hidden = !facts.clusters;
    $("facts").textContent = `${facts.items.toLocaleString()} items · ${facts.encoder} · ${facts.dim} dimensions · ${facts.metric}`;
    $("label").append(...Object.entries(facts.labels).map(([name, n]) => element("option", { value: name, textContent: `${name} (${n})` })));
    $("column").append(...Object.keys(facts.kinds).map((name) => element("option", { textContent: name })));
  } catch (error) {
    say(error.message, true);
    return;
  }
  fromAddress();
}

start();
