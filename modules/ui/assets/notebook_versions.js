// Every saved text of a page in a dialog, also those that neither Undo nor Redo reaches; one chosen is shown, on top of them.

import { get, post } from "./api.js";
import { openDialog } from "./dialog.js";
import { count, h } from "./dom.js";

/** Ask for the versions of what the notebook shows and let one be chosen. */
export async function openVersions(notebook) {
  await notebook.save();
  const document = notebook.document;
  if (!document) throw new Error("This page has no saved version yet.");
  const { versions } = await get("notebook/versions", { document: document.id });
  const rows = versions.map((version) => {
    const about = [new Date(version.created * 1000).toLocaleString(), count(version.length, "character")];
    const ending = version.ending.replace(/\s+/gu, " ").trim();
    const choose = () => {
      dialog.close();
      if (!version.is_shown) notebook.change(() => bringBack(notebook, document, version));
    };
    return h("li", { class: version.is_shown ? "open" : "" },
      h("button", { type: "button", class: "chat", "aria-current": version.is_shown ? "true" : null, onclick: choose },
        h("span", { class: "title", text: about.join(" · ") + (version.is_shown ? " · shown" : "") }),
        h("span", { class: "snippet", dir: "auto", text: (version.length > version.ending.length ? "… " : "") + (ending || "no words") })));
  });
  const dialog = openDialog(h("h2", { text: "Versions" }),
    h("p", { class: "nothing", text: "Choosing one shows its text as a new version; all others stay." }), h("ul", { class: "rows" }, ...rows));
}

async function bringBack(notebook, document, version) {
  await notebook.save();
  notebook.show((await post("notebook/bring_back", { document: document.id, version: version.id })).document);
}
