// The translated image beside the one that was asked.

import { fromText } from "./pictures.js";

const $ = (id) => document.getElementById(id);

export function showTranslated(base64) {
  const image = $("translated");
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  image.removeAttribute("src");
  image.hidden = !base64;
  if (base64) image.src = fromText(base64);
}
