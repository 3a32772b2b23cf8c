// What Escape means on the page: it stops the reply, or ends a pending branch, where nothing else has a use for it.

const COMPOSER = ".composer textarea";
const THEIRS = "dialog, input, textarea, select, [contenteditable], [role=dialog], [role=listbox], [role=combobox], [role=menu]";
const OPEN = "dialog[open], [role=listbox][aria-expanded=true], [role=combobox][aria-expanded=true]";

/** Act on Escape while `chat`, the chat's element, is shown. As the button says, a reply is stopped first. */
export function listenForEscape(chat, conversation) {
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || isForOthers(event) || !chat.checkVisibility()) return;
    if (conversation.isStreaming) conversation.stop();
    else if (conversation.branch !== null) conversation.endBranch();
  });
}

/** An input method, a dialog, an open list and every box but the chat's own have a use for it. */
function isForOthers(event) {
  if (event.defaultPrevented || event.isComposing || document.querySelector(OPEN)) return true;
  return event.target.matches(THEIRS) ? !event.target.matches(COMPOSER) : event.target.closest(THEIRS) !== null;
}
