// Tells the page when another chat is shown, so that the form of character and prompts, which Gradio draws, follows.

let tell = null;
let shown = "";
let timer = 0;

/** Call `moved` whenever a chat was opened or the open one is another. Called again, the latest `moved` is told. */
export function follow(moved) {
  const isFirst = tell === null;
  tell = moved;
  if (!isFirst) return;
  const { colloquyChat } = window;
  shown = place(colloquyChat.facts);
  colloquyChat.addEventListener("opened", soon);
  colloquyChat.addEventListener("shown", () => {
    const before = shown;
    shown = place(colloquyChat.facts);
    if (shown !== before) soon();
  });
}

/**
 * Once for all that happens in one go. Until the form is filled, which ends `inert`, nobody can type into the other chat's. `moves`
 * counts, so that a filling which was asked for before the newest move does not end it: the next one would wipe what was typed.
 */
function soon() {
  const form = document.getElementById("chat-form");
  if (!form) return; // a page that shows the chat alone
  form.inert = true;
  form.dataset.moves = String(Number(form.dataset.moves ?? 0) + 1);
  clearTimeout(timer);
  timer = setTimeout(() => tell(), 0);
}

/** Empty chats have no id yet; they differ in whom the model plays. */
function place(facts) {
  return JSON.stringify([facts.conversation, facts.names.assistant]);
}
