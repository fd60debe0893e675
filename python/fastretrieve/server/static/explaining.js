// Why an item matched: a heat map over the query and one over the item.

import { element, picture } from "./pictures.js";
import { quoted } from "./words.js";

const HOT = [255, 70, 0, 0.7]; // red, green, blue and how much of them
const COLD = [24, 28, 44, 0.6];

// Put heat on a picture in its frame; `part` is the region of it that the heat is about.
export function heated(frame, heat, part = [0, 0, 1, 1]) {
  const canvas = element("canvas", { width: heat[0].length, height: heat.length });
  const most = Math.max(...heat.flat()) || 1;
  const pixels = heat.flat().flatMap((share) => colour(share / most));
  const pen = canvas.getContext("2d");
  pen.putImageData(new ImageData(new Uint8ClampedArray(pixels), canvas.width, canvas.height), 0, 0);
  const [left, top, right, bottom] = part.map((share) => 100 * share);
  canvas.style.cssText = `left:${left}%;top:${top}%;width:${right - left}%;height:${bottom - top}%`;
  frame.classList.add("heated");
  frame.append(canvas);
  return frame;
}

function colour(share) {
  const [hot, cold] = [share * HOT[3], (1 - share) * COLD[3]];
  const mixed = [0, 1, 2].map((i) => (hot * HOT[i] + cold * COLD[i]) / (hot + cold));
  return [...mixed, 255 * (hot + cold)];
}

// The item, and the picture asked with, with their heat, and a sentence; words alone stand where that
// picture would. `asked` is {item, file, region, source, words}.
export async function pairOf(asked, item, call) {
  const path = `api/items/${item.id}/explanation`;
  const about = { ...(asked.region ? { region: asked.region } : {}), ...asked.words };
  let answer;
  if (asked.file) {
    const body = new FormData();
    for (const [name, value] of Object.entries(about)) body.append(name, value);
    body.append("image", asked.file);
    answer = await call(path, { method: "POST", body });
  } else if (!asked.source) {
    answer = await call(`${path}/words?${new URLSearchParams(about)}`);
  } else {
    answer = await call(`${path}?${new URLSearchParams({ query: asked.item, ...about })}`);
  }
  const frames = [];
  for (const [source, one, part] of [
    [asked.source, answer.query, asked.region?.split(",").map(Number)],
    [`${item.picture}?size=1024`, answer.item, undefined],
  ]) {
    if (!source) {
      frames.push(element("p", { className: "said", textContent: quoted(asked.words.text) }));
      continue;
    }
    const [frame, image] = picture("");
    image.src = source;
    frames.push(heated(frame, one.heat, part));
  }
  const how = answer.method === "parts" ? "exact parts of the vectors" : "covering parts of the pictures";
  const words = asked.source && asked.words.text ? ` with ${quoted(asked.words.text)} mixed in` : "";
  return [frames, `What matched${words}, by ${how}: ${answer.metric} ${answer.score.toFixed(4)}`];
}
