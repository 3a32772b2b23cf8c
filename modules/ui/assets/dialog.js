// Dialogs over the page: a question, and a list to choose from.

import { h, iconButton } from "./dom.js";

/** Ask in a dialog; resolves to whether the person agreed, by the button named `action`. */
export function confirmed(question, action = "Delete") {
  return new Promise((resolve) => {
    const dialog = h("dialog", { class: "colloquy-dialog" }, h("form", { method: "dialog" }, h("p", { text: question }),
      h("div", { class: "row" }, h("button", { class: "plain", value: "no", text: "Cancel" }),
        h("button", { class: "plain danger", value: "yes", text: action }))));
    show(dialog, () => resolve(dialog.returnValue === "yes"));
  });
}

/** A dialog with a heading, for a list; closed by its button, Escape, or a click beside it. Close it with its `close()`. */
export function openDialog(heading, ...content) {
  const dialog = h("dialog", { class: "colloquy-dialog list", "aria-label": heading.textContent }, h("div", { class: "chats" },
    h("div", { class: "row head" }, heading, iconButton("close", "Close", () => dialog.close())), ...content));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  show(dialog, () => {});
  return dialog;
}

function show(dialog, onClose) {
  dialog.addEventListener("close", () => {
    dialog.remove();
    onClose();
  });
  document.body.append(dialog);
  dialog.showModal();
}
