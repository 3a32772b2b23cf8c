// Words that were typed in the notebook and not saved, found again: gone on with, or offered in a line.

import { post } from "./api.js";
import { confirmed } from "./dialog.js";
import { h, textButton } from "./dom.js";
import { drafts, forgetDraft, goesOn, isOwn, onDraftGone } from "./notebook_drafts.js";

const LAST_WORDS = 80; // characters

export class DraftOffers {
  constructor(page) {
    this.page = page;
    this.element = h("div", { class: "offers", role: "status" });
    onDraftGone(() => this.draw());
  }

  /** Go on with what this tab had typed over this very version; whatever else was typed is offered, and put over nothing. */
  recover() {
    const page = this.page;
    for (const draft of drafts()) {
      if (isOwn(draft)) continue;
      const isShown = draft.document === (page.document?.id ?? "") && draft.text === page.area.value;
      if (!isShown && !goesOn(draft, page.document)) continue;
      if (!isShown) page.goOnWith(draft.text);
      forgetDraft(draft);
    }
    this.draw();
  }

  draw() {
    this.element.replaceChildren(...drafts().filter((draft) => !isOwn(draft)).map((draft) => {
      const place = draft.document === (this.page.document?.id ?? "") ? "" : ` in “${draft.title || "Untitled"}”`;
      const text = `Unsaved words from ${new Date(draft.when).toLocaleString()}${place}`;
      return h("div", { class: "notice" }, h("span", { text }),
        textButton("Show", () => this.page.change(() => this.show(draft)), { title: "Save and show them; the text shown now stays among the versions" }),
        textButton("Discard", () => this.discard(draft)));
    }));
  }

  /** Saved over the version that it was typed on: whatever was saved since stays beside it. */
  async show(draft) {
    const page = this.page;
    if (page.run) throw new Error("The page is being written to; stop that first.");
    await page.save();
    const answer = await this.save(draft);
    forgetDraft(draft);
    page.show(answer.document);
  }

  async save(draft) {
    const { document, text } = draft;
    if (document) {
      try {
        const answer = await post("notebook/save", { document, text, base: draft.version });
        return document === this.page.document?.id ? answer : await post("notebook/open", { document });
      } catch (error) {
        if (error.code !== "not_found") throw error; // it was deleted for good: the words get a page of their own
      }
    }
    return post("notebook/new", { text });
  }

  async discard(draft) {
    const words = draft.text.trim().slice(-LAST_WORDS);
    if (!await confirmed(`Discard these unsaved words for good? They end with “${words}”.`, "Discard")) return;
    forgetDraft(draft);
    this.draw();
  }
}
