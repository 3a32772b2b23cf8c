// A question in a dialog over the page.

import { h } from "./dom.js";

/** Ask in a dialog; resolves to whether the person agreed, by the button named `action`. */
export function confirmed(question, action = "Delete") {
  return new Promise((resolve) => {
    const dialog = h("dialog", { class: "colloquy-dialog" }, h("form", { method: "dialog" }, h("p", { text: question }),
      h("div", { class: "row" }, h("button", { class: "plain", value: "no", text: "Cancel" }),
        h("button", { class: "plain danger", value: "yes", text: action }))));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
