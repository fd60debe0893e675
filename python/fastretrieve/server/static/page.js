// The page of a gallery. What is asked (an uploaded image, an item, or nothing: all items), the
// filters and the offset make the state; every change of it asks the API and draws the answer.

const K = 24;
const $ = (id) => document.getElementById(id);
const state = { upload: null, item: null, filters: [], offset: 0 };
let running = null; // aborts the request before this one

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
  say("Searching …");
  try {
    const answer = await request(mine.signal);
    draw(answer, performance.now() - started);
  } catch (error) {
    if (error.name !== "AbortError") say(error.message, true);
  }
}

function say(text, isBad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", isBad);
}

function draw(answer, waited) {
  $("results").replaceChildren(...answer.matches.map(card));
  const n = answer.matches.length;
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

function card(item) {
  const title = item.score === null ? item.label ?? "" : item.score.toFixed(4);
  const note = item.score === null || !item.label ? item.name : `${item.label} · ${item.name}`;
  const image = element("img", { src: item.picture, alt: item.caption ?? item.label ?? item.name, loading: "lazy" });
  const search = element(
    "button",
    { type: "button", className: "card", title: "Find images like this one" },
    image,
    element("span", { className: "score", textContent: title }),
    element("span", { className: "name", textContent: note, title: item.name }),
  );
  search.addEventListener("click", () => searchItem(item.id));
  const more = element("button", { type: "button", className: "more", textContent: "i", ariaLabel: `About ${item.name}` });
  more.addEventListener("click", () => enlarge(item));
  return element("li", {}, search, more);
}

function enlarge(item) {
  $("large-picture").src = `${item.picture}?size=1024`;
  $("large-picture").alt = item.caption ?? item.name;
  const size = item.width ? `${item.width} × ${item.height}` : null;
  const facts = { Name: item.name, Label: item.label, Caption: item.caption, Size: size, ...item.metadata };
  $("large-facts").replaceChildren(
    ...Object.entries(facts).flatMap(([name, value]) =>
      value === null || value === "" ? [] : [element("dt", { textContent: name }), element("dd", { textContent: value })]),
  );
  $("large").showModal();
}

// --- what is asked ------------------------------------------------------------------------------

function show(source) {
  if ($("query").src.startsWith("blob:")) URL.revokeObjectURL($("query").src);
  $("query").hidden = !source;
  $("hint").hidden = Boolean(source);
  if (source) $("query").src = source;
  else $("query").removeAttribute("src");
}

function ask({ upload = null, item = null }, remember = true) {
  Object.assign(state, { upload, item, offset: 0 });
  show(upload ? URL.createObjectURL(upload) : item ? `api/items/${item}/picture` : null);
  if (remember) history.pushState({ item }, "", item ? `#item=${item}` : location.pathname + location.search);
  refresh();
}

function searchItem(id) {
  ask({ item: id });
  scrollTo({ top: 0, behavior: "smooth" });
}

function searchFile(file) {
  if (!file) return;
  if (file.type && !file.type.startsWith("image/")) say(`${file.name} is no image`, true);
  else ask({ upload: file });
}

function fromAddress() {
  const id = Number(new URLSearchParams(location.hash.slice(1)).get("item"));
  ask({ item: Number.isInteger(id) && id > 0 ? id : null }, false);
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
  document.addEventListener("keydown", moveFocus);
  $("home").addEventListener("click", () => ask({}));
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
    const facts = await call("api/gallery");
    document.title = `${facts.name} · fastretrieve`;
    $("home").textContent = facts.name;
    $("facts").textContent = `${facts.items.toLocaleString()} items · ${facts.encoder} · ${facts.dim} numbers · ${facts.metric}`;
    $("label").append(...Object.entries(facts.labels).map(([name, n]) => element("option", { value: name, textContent: `${name} (${n})` })));
    $("column").append(...["label", "caption", "path", "width", "height", ...facts.columns].map((name) => element("option", { textContent: name })));
  } catch (error) {
    say(error.message, true);
    return;
  }
  fromAddress();
}

start();
