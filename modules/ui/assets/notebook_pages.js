// The notebook's pages in a dialog: opened, renamed, thrown away, and in the trash brought back or deleted for good.

import { get, post } from "./api.js";
import { confirmed, openDialog } from "./dialog.js";
import { h, iconButton, textButton } from "./dom.js";
import { drafts, forgetDraft } from "./notebook_drafts.js";

export class PageList {
  /** Over the notebook's page, which it asks to open another or to throw one away. */
  constructor(notebook) {
    this.notebook = notebook;
    this.rows = [];
    this.isTrash = false;
    this.asked = 0;
    this.heading = h("h2", { text: "Pages" });
    this.list = h("ul", { class: "rows" });
    this.problem = h("p", { class: "problem", role: "alert", hidden: true });
    this.nothing = h("p", { class: "nothing", hidden: true });
    this.more = textButton("More", () => this.load(this.rows.length), { hidden: true });
    this.toggle = textButton("Trash", () => this.show(!this.isTrash));
    this.purge = textButton("Empty the trash", () => this.emptyTrash(), { hidden: true });
    this.list.addEventListener("scroll", () => {
      const left = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight;
      if (!this.more.hidden && left < 200) this.load(this.rows.length);
    }, { passive: true });
    this.dialog = openDialog(this.heading, this.problem, this.list, this.nothing, this.more,
      h("div", { class: "row" }, this.toggle, this.purge));
    this.load();
  }

  show(isTrash) {
    this.isTrash = isTrash;
    this.heading.textContent = isTrash ? "Trash" : "Pages";
    this.toggle.textContent = isTrash ? "Back to the pages" : "Trash";
    return this.load();
  }

  /** From `offset` on; 0 draws anew. An answer that a newer question has overtaken is dropped. */
  async load(offset = 0) {
    if (offset && this.isLoading) return;
    const asked = ++this.asked;
    this.isLoading = true;
    await this.try(async () => {
      const answer = await get("notebook/documents", { offset, trashed: this.isTrash ? 1 : 0 });
      if (asked !== this.asked) return;
      const known = new Set(offset ? this.rows.map((row) => row.id) : []);
      const fresh = answer.documents.filter((found) => !known.has(found.id));
      this.rows = offset ? [...this.rows, ...fresh] : fresh;
      const elements = fresh.map((found) => this.row(found));
      if (offset) this.list.append(...elements);
      else this.list.replaceChildren(...elements);
      this.more.hidden = !answer.more;
      this.nothing.hidden = this.rows.length > 0;
      this.nothing.textContent = this.isTrash ? "The trash is empty." : "No pages yet.";
      this.purge.hidden = !this.isTrash || !this.rows.length;
    });
    if (asked === this.asked) this.isLoading = false;
  }

  row(found) {
    const title = found.title || "Untitled";
    const isOpen = found.id === this.notebook.document?.id;
    const open = h("button", { type: "button", class: "chat", disabled: this.isTrash, "aria-current": isOpen ? "true" : null, onclick: () => this.open(found) },
      h("span", { class: "title", text: title, dir: "auto" }),
      h("span", { class: "about", text: new Date(found.updated * 1000).toLocaleString() }));
    const buttons = this.isTrash
      ? [iconButton("restore", `Restore “${title}”`, () => this.act("restore", { document: found.id })),
        iconButton("bin", `Delete “${title}” for good`, () => this.purgeOne(found))]
      : [iconButton("edit", `Rename “${title}”`, () => this.rename(element, found)),
        iconButton("bin", `Move “${title}” to the trash`, () => this.trash(found))];
    const element = h("li", { class: isOpen ? "open" : "" }, open, h("span", { class: "actions" }, ...buttons));
    return element;
  }

  async open(found) {
    this.dialog.close();
    if (found.id !== this.notebook.document?.id) await this.notebook.change(() => this.notebook.open(found.id));
  }

  rename(element, found) {
    const input = h("input", { type: "text", value: found.title, maxlength: 500, "aria-label": "New title", dir: "auto" });
    let isDone = false;
    const finish = async (keep) => {
      if (isDone) return;
      isDone = true;
      const title = input.value.trim();
      if (keep && title && title !== found.title) {
        isDone = await this.try(() => post("notebook/rename", { document: found.id, title }));
        if (!isDone) return; // the input stays, with what was typed
        found.title = title;
        this.notebook.renamed(found.id, title);
      }
      const row = this.row(found);
      const had = document.activeElement === input;
      element.replaceWith(row);
      if (had) row.querySelector(".actions button").focus();
    };
    input.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Enter") finish(true);
      else if (event.key === "Escape") finish(false);
      else return;
      event.preventDefault(); // the dialog stays
      event.stopPropagation();
    });
    input.addEventListener("blur", () => finish(true));
    element.replaceChildren(input);
    input.focus();
    input.select();
  }

  async trash(found) {
    if (found.id === this.notebook.document?.id) await this.notebook.change(() => this.notebook.trash());
    else await this.try(() => post("notebook/trash", { document: found.id }));
    await this.load();
  }

  act(path, body) {
    return this.try(async () => {
      await post(`notebook/${path}`, body);
      await this.load();
    });
  }

  async purgeOne(found) {
    if (!await confirmed(`Delete “${found.title || "Untitled"}” for good? This cannot be undone.`)) return;
    if (await this.act("purge", { document: found.id })) await this.forgetPurged();
  }

  async emptyTrash() {
    if (!await confirmed("Delete all pages in the trash for good? This cannot be undone.")) return;
    if (await this.act("purge", { all: true })) await this.forgetPurged();
  }

  /** Run it; what it throws is said in the dialog. Returns whether it worked. */
  async try(work) {
    try {
      await work();
      this.problem.hidden = true;
      return true;
    } catch (error) {
      console.warn(error);
      this.problem.textContent = error.message ?? String(error);
      this.problem.hidden = false;
      return false;
    }
  }

  /** What this browser kept of pages that are gone for good goes too. */
  async forgetPurged() {
    for (const draft of drafts().filter((draft) => draft.document)) {
      try {
        await get("notebook/versions", { document: draft.document });
      } catch (error) {
        if (error.code === "not_found") forgetDraft(draft);
        else console.warn(error); // it stays, and is offered
      }
    }
    this.notebook.offers.draw();
  }
}
