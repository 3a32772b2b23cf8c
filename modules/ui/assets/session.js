// This browser tab's session: a random id, kept over reloads. A duplicated tab, which begins with a copy of it, gets its own.

const KEY = "colloquy-session";
const PATIENCE = 1500; // milliseconds within which the page before a reload lets go of its id, on a busy machine too

const id = window.colloquySession?.() ?? await claim(); // tests choose their own
window.colloquySession = session;

/** The tab's id; the server begins a new one as a copy of the latest. */
export function session() {
  return id;
}

async function claim() {
  const kept = sessionStorage.getItem(KEY);
  if (kept && await hold(kept)) return kept;
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const own = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  sessionStorage.setItem(KEY, own);
  await hold(own);
  if (kept) await copy(kept, own);
  return own;
}

/** Hold the id's lock as long as the page is there; resolves to whether it could. Off localhost without HTTPS there are no locks. */
function hold(name) {
  if (!navigator.locks) return Promise.resolve(true);
  return new Promise((resolve) => {
    const left = new Promise((go) => addEventListener("pagehide", go, { once: true }));
    const held = () => {
      resolve(true);
      return left;
    };
    navigator.locks.request(`${KEY} ${name}`, { signal: AbortSignal.timeout(PATIENCE) }, held).catch(() => resolve(false));
  });
}

/** Begin the session with what the other tab has open. */
async function copy(from, own) {
  try {
    const headers = { "X-Session": own, "Content-Type": "application/json" };
    const address = new URL("../../ui-api/duplicate", import.meta.url);
    const answer = await fetch(address, { method: "POST", headers, body: JSON.stringify({ session: from }) });
    if (!answer.ok) throw new Error(`The server answered ${answer.status}.`);
  } catch (error) {
    console.warn("The duplicated tab begins with what was open last:", error);
  }
}

// A page that comes back whole by the browser's Back asks again; where its id went to another tab it needs one of its own.
addEventListener("pageshow", async (event) => {
  if (event.persisted && !await hold(id)) location.reload();
});
