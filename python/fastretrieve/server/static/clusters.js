// Clusters: their cards, the names of those that a reader has seen, and what stands above the
// results while one is walked.

import { element, picture } from "./pictures.js";

export const OUTSIDE = { walk: false, cluster: null }; // neither the list of clusters nor one of them
const known = new Map(); // by number

const $ = (id) => document.getElementById(id);
const counted = (n) => `${n.toLocaleString()} ${n === 1 ? "item" : "items"}`;

export function clusterCard(cluster, open) {
  known.set(cluster.number, cluster);
  const [frame, image] = picture("");
  image.loading = "lazy";
  image.src = cluster.picture;
  const line = element("span", { className: "line" }, element("b", { textContent: cluster.name, title: cluster.name }));
  if (cluster.share !== null) {
    const percent = `${Math.round(cluster.share * 100)}%`;
    line.append(element("span", { className: "score", textContent: percent, title: "of its items have this label" }));
  }
  const button = element(
    "button",
    { type: "button", className: "card", title: "Show the items of this cluster" },
    frame,
    line,
    element("span", { className: "name", textContent: counted(cluster.size) }),
  );
  button.addEventListener("click", () => open(cluster.number));
  return element("li", {}, button);
}

// A cluster by its number, for its name; null where the server has none.
async function about(number, call) {
  if (!known.has(number)) known.set(number, await call(`api/clusters/${number}`).catch(() => null));
  return known.get(number);
}

// The row above the results. `inside` is the number of the cluster that is shown or was searched.
export async function showGroups(state, inside, call) {
  $("walk").setAttribute("aria-pressed", state.walk);
  $("inside").hidden = inside === null;
  if (inside === null) return;
  $("inside-name").dataset.number = inside;
  const cluster = await about(inside, call);
  if ($("inside-name").dataset.number !== String(inside)) return; // another one meanwhile
  $("inside-name").textContent = cluster?.name ?? `cluster ${inside}`;
  $("inside-size").textContent = cluster ? counted(cluster.size) : "";
}
