// Tells Gradio when a model comes or goes, and of a load's progress, whoever asked for it: this page, another one, or an API client.

const ADDRESS = new URL("../../ui-api/models", import.meta.url.replace(/^http/, "ws"));
const PAUSE = 2000; // milliseconds before the server is called again

let told = null;
let last = "";
let hasMissed = false;

/** Call `changed` where other models are held or a load began or ended, `progress` while one goes on. The latest are told. */
export function watch(changed, progress) {
  const isFirst = told === null;
  told = { changed, progress };
  if (!isFirst) return;
  connect();
  document.addEventListener("modelchosen", () => told.changed());
  document.addEventListener("visibilitychange", () => {
    if (document.hidden || !hasMissed) return;
    hasMissed = false;
    told.progress();
  });
}

function connect() {
  const socket = new WebSocket(ADDRESS);
  socket.addEventListener("message", (event) => take(event.data));
  socket.addEventListener("close", () => setTimeout(connect, PAUSE));
}

function take(message) {
  if (message !== last) told.changed();
  else if (document.hidden) hasMissed = true; // nobody sees it
  else told.progress();
  last = message;
}
