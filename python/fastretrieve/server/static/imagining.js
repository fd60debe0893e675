// Imagined queries: the pictures that the server drew and searched with, too.

import { element, fromText } from "./pictures.js";

const $ = (id) => document.getElementById(id);
let sources = [];

// Shows JPEGs in base64, numbered as `found_by` numbers them.
export function showImagined(pictures = []) {
  sources.forEach((source) => URL.revokeObjectURL(source));
  sources = pictures.map(fromText);
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
