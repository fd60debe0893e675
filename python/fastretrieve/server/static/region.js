// Choose a part of the query's picture: with the mouse or a finger, or with the arrow keys.

const $ = (id) => document.getElementById(id);
const STEP = 0.05;
let box = [0.25, 0.25, 0.75, 0.75]; // left, top, right, bottom as shares
let start = null; // where a drag began

// Opens the dialog; `done` gets "left,top,right,bottom", or null for the whole picture.
export function chooseRegion(source, region, done) {
  box = region ? region.split(",").map(Number) : [0.25, 0.25, 0.75, 0.75];
  $("part-image").src = source;
  draw();
  $("part").onclose = () => {
    const answer = $("part").returnValue;
    if (answer === "part") done(box.map((share) => Number(share.toFixed(4))).join(","));
    else if (answer === "whole") done(null);
  };
  $("part").returnValue = "";
  $("part").showModal();
  $("part-picture").focus();
}

function draw() {
  const [left, top, right, bottom] = box.map((share) => 100 * share);
  $("part-box").style.cssText = `left:${left}%;top:${top}%;width:${right - left}%;height:${bottom - top}%`;
}

function place(event) {
  const around = $("part-image").getBoundingClientRect();
  const share = (at, from, length) => Math.min(1, Math.max(0, (at - from) / length));
  return [share(event.clientX, around.left, around.width), share(event.clientY, around.top, around.height)];
}

function dragged(event) {
  if (!start) return;
  const [x, y] = place(event);
  const wanted = [Math.min(x, start[0]), Math.min(y, start[1]), Math.max(x, start[0]), Math.max(y, start[1])];
  if (wanted[2] - wanted[0] < 0.01 || wanted[3] - wanted[1] < 0.01) return; // a click is no part
  box = wanted;
  draw();
}

// Arrows move the part; with Shift they move its right and bottom edge.
function pressed(event) {
  const [x, y] = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key] ?? [0, 0];
  if (!x && !y && event.key !== "Enter") return;
  event.preventDefault(); // or the button that gets the focus back is pressed, too
  if (event.key === "Enter") return $("part-search").click();
  const moved = event.shiftKey ? [box[0], box[1], box[2] + x, box[3] + y] : [box[0] + x, box[1] + y, box[2] + x, box[3] + y];
  const isInside = moved.every((share) => share >= -1e-9 && share <= 1 + 1e-9);
  if (!isInside || moved[2] - moved[0] < STEP / 2 || moved[3] - moved[1] < STEP / 2) return;
  box = moved.map((share) => Math.min(1, Math.max(0, share)));
  draw();
}

export function watchRegion() {
  const frame = $("part-picture");
  frame.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    frame.focus();
    frame.setPointerCapture(event.pointerId);
    start = place(event);
  });
  frame.addEventListener("pointermove", dragged);
  for (const name of ["pointerup", "pointercancel"]) frame.addEventListener(name, () => (start = null));
  frame.addEventListener("keydown", pressed);
}
