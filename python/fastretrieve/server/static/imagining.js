// Imagined queries: the switch, and the pictures that the server drew and searched with, too.

import { element } from "./pictures.js";

const $ = (id) => document.getElementById(id);
let sources = [];

// Shows the switch where the server can imagine; `changed` is told when it is turned.
export function offer(n, changed) {
  $("imagine-switch").hidden = !n;
  $("imagine-count").textContent = n;
  $("imagine").addEventListener("change", () => changed($("imagine").checked));
}

export function showSwitch(isOn) {
  $("imagine").checked = isOn;
}

// Shows JPEGs in base64, numbered as `found_by` numbers them.
export function showImagined(pictures = []) {
  sources.forEach((source) => URL.revokeObjectURL(source));
  sources = pictures.map((text) => {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    return URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }));
  });
  $("imagined").hidden = !sources.length;
  $("imagined-pictures").replaceChildren(
    ...sources.map((src, i) => {
      const image = element("img", { src, alt: `imagined ${i + 1}` });
      return element("li", {}, image, element("span", { textContent: i + 1 }));
    }),
  );
}

// What found an item, where imagined pictures asked, too.
export function finder(item, pictures) {
  if (!pictures?.length || item.found_by === null) return null;
  return item.found_by ? `imagined ${item.found_by}` : "query";
}
