// The switch that carries an uploaded image into the gallery's style before the search, where the
// server has a style, and the translated image beside the one that was asked.

const $ = (id) => document.getElementById(id);

export function setUpTranslating(changed) {
  $("translating").addEventListener("change", () => changed($("translating").checked));
}

// The switch is there for uploads: items of the gallery are in its style already.
export function showTranslating(isOffered, isOn) {
  $("translate").hidden = !isOffered;
  $("translating").checked = isOn;
  if (!isOffered || !isOn) showTranslated(null);
}

export function showTranslated(base64) {
  const image = $("translated");
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  image.removeAttribute("src");
  image.hidden = !base64;
  if (!base64) return;
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  image.src = URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }));
}
