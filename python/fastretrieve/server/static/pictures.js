// Elements of the page, and pictures that say why they cannot be seen.

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// The address of a JPEG in base64; whoever shows it revokes it.
export function fromText(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type: "image/jpeg" }));
}

// A picture in a frame that says why there is none.
export function picture(alt) {
  const image = element("img", { alt });
  const note = element("span", { className: "none", hidden: true });
  image.addEventListener("error", () => explain(image, note));
  return [element("span", { className: "picture" }, image, note), image];
}

// Busy servers are asked again; what the others say stands where the picture would.
async function explain(image, note, tries = 0) {
  if (!image.src || image.src.startsWith("blob:")) return;
  const answer = await fetch(image.src).catch(() => null);
  if (answer?.ok) {
    image.src = URL.createObjectURL(await answer.blob());
  } else if ((!answer || answer.status === 503) && tries < 5) {
    setTimeout(() => image.isConnected && explain(image, note, tries + 1), 500 * 2 ** tries);
  } else {
    const reason = (await answer?.json().catch(() => null))?.detail ?? "the server does not answer";
    note.textContent = `No picture: ${reason}`;
    note.hidden = !(image.hidden = true);
  }
}
