// Uploaded images stay in the browser that chose them, so that a reload, a step back and a step
// forward find them again. The address names them by number; nobody else can open it.

const KEPT = 8; // the newest ones
const DAY = 24 * 60 * 60 * 1000;
const recent = new Map(); // where the browser keeps nothing, they last as long as the page

function opened() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open("fastretrieve", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("uploads");
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

// One transaction: `act` gets the store and gives a request, or nothing.
async function within(mode, act) {
  const database = await opened();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction("uploads", mode);
      const request = act(transaction.objectStore("uploads"));
      transaction.oncomplete = () => resolve(request?.result);
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
  } finally {
    database.close();
  }
}

// Keys begin with the time, so that their order is that of the uploads.
export async function keep(file) {
  const key = `${Date.now()}-${Math.random().toString(36).slice(2, 10)}`;
  recent.set(key, file);
  try {
    await forgetOld(KEPT - 1);
    await within("readwrite", (store) => store.put({ file, name: file.name }, key));
  } catch {} // no room, or a private window
  return key;
}

export async function find(key) {
  if (recent.has(key)) return recent.get(key);
  const kept = await within("readonly", (store) => store.get(key)).catch(() => null);
  if (!kept) return null;
  recent.set(key, kept.file);
  return kept.file;
}

export async function forgetOld(n = KEPT) {
  const keys = await within("readonly", (store) => store.getAllKeys());
  const old = keys.filter((key, i) => i < keys.length - n || Date.now() - Number(key.split("-")[0]) > DAY);
  await within("readwrite", (store) => void old.map((key) => store.delete(key)));
}
