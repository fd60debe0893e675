// The page of a gallery. What is asked (an uploaded image, an item, or nothing: all items), the
// filters and the offset make the state; every change of it asks the API and draws the answer.

const K = 24;
const $ = (id) => document.getElementById(id);
const state = { upload: null, item: null, filters: [], offset: 0 };
let running = null; // aborts the request before this one
let gallery = null; // what the gallery is
let shown = []; // the items on the page
let enlarged = -1; // the position of the one in the dialog

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

async function call(path, options = {}) {
  const response = await fetch(path, options);
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    const detail = answer.detail;
    throw new Error(typeof detail === "string" ? detail : `the server says ${response.status}`);
  }
  return answer;
}

function conditions() {
  const label = $("label").value;
  const chosen = label ? [{ column: "label", operator: "=", value: label }] : [];
  return [...chosen, ...state.filters];
}

function request(signal) {
  const fields = { k: K, offset: state.offset, filters: JSON.stringify(conditions()) };
  if (state.upload) {
    const body = new FormData();
    for (const [name, value] of Object.entries(fields)) body.append(name, value);
    body.append("image", state.upload);
    return call("api/search", { method: "POST", body, signal });
  }
  const path = state.item ? `api/items/${state.item}/similar` : "api/items";
  return call(`${path}?${new URLSearchParams(fields)}`, { signal });
}

async function refresh() {
  running?.abort();
  const mine = (running = new AbortController());
  const started = performance.now();
  $("results").ariaBusy = true;
  try {
    const answer = await request(mine.signal);
    draw(answer, performance.now() - started);
  } catch (error) {
    if (error.name === "AbortError") return; // the next request is under way
    say(error.message, true);
  }
  $("results").ariaBusy = false;
}

function say(text, isBad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", isBad);
}

function draw(answer, waited) {
  shown = answer.matches;
  $("results").replaceChildren(...shown.map(card));
  const n = shown.length;
  $("range").textContent = n ? `${answer.offset + 1} to ${answer.offset + n}` : "";
  $("previous").disabled = answer.offset === 0;
  $("next").disabled = !answer.more;
  const t = answer.timing;
  if (!n) say("Nothing was found; take a condition away.");
  else if (t.search_ms === undefined) say("Click an image to find the ones like it.");
  else {
    const encoder = t.encode_ms >= 0.05 ? `encoder ${t.encode_ms.toFixed(1)} ms, ` : "";
    say(`${encoder}search ${t.search_ms.toFixed(1)} ms, ${waited.toFixed(0)} ms in all`);
  }
}

function card(item, position) {
  const image = element("img", { src: item.picture, alt: item.caption ?? item.label ?? item.name, loading: "lazy" });
  const line = element("span", { className: "line" }, element("b", { textContent: item.label ?? item.caption ?? item.name }));
  const parts = [image, line, element("span", { className: "name", textContent: item.name, title: item.name })];
  if (item.score !== null) {
    line.append(element("span", { className: "score", textContent: item.score.toFixed(4) }));
    if (gallery.metric === "cosine") parts.splice(1, 0, bar(item.score));
  }
  const search = element("button", { type: "button", className: "card", title: "Find images like this one" }, ...parts);
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
  $("large-picture").src = `${item.picture}?size=1024`;
  $("large-picture").alt = item.caption ?? item.name;
  const size = item.width ? `${item.width} × ${item.height}` : null;
  const score = item.score === null ? null : item.score.toFixed(6);
  const facts = { Name: item.name, Label: item.label, Caption: item.caption, Score: score, Size: size, ...item.metadata };
  $("large-facts").replaceChildren(
    ...Object.entries(facts).flatMap(([name, value]) =>
      value === null || value === "" ? [] : [element("dt", { textContent: name }), element("dd", { textContent: value })]),
  );
  if (!$("large").open) $("large").showModal();
}

// --- what is asked ------------------------------------------------------------------------------

function show(source, name) {
  if ($("query").src.startsWith("blob:")) URL.revokeObjectURL($("query").src);
  $("query").hidden = $("asked").hidden = !source;
  $("hint").hidden = Boolean(source);
  $("asked-name").textContent = name ?? "";
  $("file").value = ""; // so that the same file can be chosen again
  if (source) $("query").src = source;
  else $("query").removeAttribute("src");
}

function ask({ upload = null, item = null, name = null }, remember = true) {
  Object.assign(state, { upload, item, offset: 0 });
  show(upload ? URL.createObjectURL(upload) : item ? `api/items/${item}/picture` : null, name ?? upload?.name);
  if (remember) history.pushState({ item }, "", item ? `#item=${item}` : location.pathname + location.search);
  refresh();
}

function searchItem(item) {
  ask({ item: item.id, name: item.name });
  scrollTo({ top: 0, behavior: "smooth" });
}

function searchFile(file) {
  if (!file) return;
  if (file.type && !file.type.startsWith("image/")) say(`${file.name} is no image`, true);
  else ask({ upload: file });
}

async function fromAddress() {
  const id = Number(new URLSearchParams(location.hash.slice(1)).get("item"));
  const item = Number.isInteger(id) && id > 0 ? id : null;
  ask({ item, name: item && `item ${item}` }, false);
  if (!item) return;
  const found = await call(`api/items/${item}`).catch(() => null); // the search says what is wrong
  if (found && state.item === item) $("asked-name").textContent = found.name;
}

// --- filters ------------------------------------------------------------------------------------

function addFilter() {
  const [column, operator] = [$("column").value, $("operator").value];
  const text = $("value").value.trim();
  const isNumber = text !== "" && Number.isFinite(Number(text));
  const value = operator.startsWith("is ") ? null : isNumber && operator !== "contains" ? Number(text) : text;
  state.filters.push({ column, operator, value });
  $("value").value = "";
  filtersChanged();
}

function filtersChanged() {
  state.offset = 0;
  $("chosen").replaceChildren(
    ...state.filters.map((filter, i) => {
      const text = `${filter.column} ${filter.operator} ${filter.value ?? ""}`.trim();
      const remove = element("button", { type: "button", textContent: `${text} ✕`, title: "Take this condition away" });
      remove.addEventListener("click", () => {
        state.filters.splice(i, 1);
        filtersChanged();
      });
      return element("li", {}, remove);
    }),
  );
  refresh();
}

function page(step) {
  state.offset = Math.max(0, state.offset + step * K);
  refresh();
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
    return;
  }
  if (event.target.matches("input:not([type=file]), select")) return;
  const here = document.activeElement.closest("#results li");
  if (event.key === "i" && here) enlarge([...$("results").children].indexOf(here));
  else if (event.key === "n" && !$("next").disabled) page(1);
  else if (event.key === "p" && !$("previous").disabled) page(-1);
  else if (event.key === "Escape" && (state.upload || state.item)) ask({});
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
  document.addEventListener("paste", (event) => searchFile(event.clipboardData.files[0]));
  document.addEventListener("keydown", pressed);
  for (const id of ["home", "clear"]) $(id).addEventListener("click", () => ask({}));
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
  $("label").addEventListener("change", filtersChanged);
  $("filters").addEventListener("submit", (event) => {
    event.preventDefault();
    addFilter();
  });
  $("previous").addEventListener("click", () => page(-1));
  $("next").addEventListener("click", () => page(1));
  addEventListener("popstate", fromAddress);
  try {
    const facts = (gallery = await call("api/gallery"));
    document.title = `${facts.name} · fastretrieve`;
    $("title").textContent = facts.name;
    $("facts").textContent = `${facts.items.toLocaleString()} items · ${facts.encoder} · ${facts.dim} dimensions · ${facts.metric}`;
    $("label").append(...Object.entries(facts.labels).map(([name, n]) => element("option", { value: name, textContent: `${name} (${n})` })));
    $("column").append(...["label", "caption", "path", "width", "height", ...facts.columns].map((name) => element("option", { textContent: name })));
  } catch (error) {
    say(error.message, true);
    return;
  }
  fromAddress();
}

start();
