// The notebook: a page of free text that the model goes on with, its documents, undo and redo of whole steps.

import { get, post } from "./api.js";
import { fillWindow, h, icon, stylesheet, textButton } from "./dom.js";
import { dropDraft, keepDraft } from "./notebook_drafts.js";
import { DraftOffers } from "./notebook_offers.js";
import { PageList } from "./notebook_pages.js";
import { PageRun } from "./notebook_run.js";
import { NotebookState } from "./notebook_state.js";
import { openVersions } from "./notebook_versions.js";

const SAVE_PAUSE = 700; // milliseconds after the last key
const RETRY = 3000; // between two tries to save what could not be
const LOST = "Connection lost; reconnecting…";
const LOST_TYPING = "Connection lost; what you type is kept in this browser and saved once the server answers.";

class NotebookPage {
  constructor() {
    this.document = null;
    this.run = "";
    this.isChanging = false; // another text is on its way
    this.isRefused = false; // the last save: a line says why
    this.saving = null;
    this.area = h("textarea", { class: "page", "aria-label": "Notebook page", dir: "auto", spellcheck: "true",
      placeholder: "Write the beginning of something, then press Generate." });
    this.area.addEventListener("input", () => this.typed());
    this.area.addEventListener("keydown", (event) => this.key(event));
    this.generateButton = h("button", { type: "button", class: "plain primary generate", onclick: () => this.generateOrStop() });
    this.undoButton = textButton("Undo", () => this.step("undo"));
    this.redoButton = textButton("Redo", () => this.step("redo"));
    this.newButton = textButton("New page", () => this.change(() => this.begin()));
    this.title = h("span", { dir: "auto" });
    this.pagesButton = h("button", { type: "button", class: "plain pages", title: "All pages, and the trash", "aria-haspopup": "dialog",
      onclick: () => new PageList(this) }, h("span", { class: "unseen", text: "Pages: " }), this.title, icon("below"));
    this.versionsButton = textButton("Versions", () => this.change(() => openVersions(this)), { "aria-haspopup": "dialog" });
    this.trashButton = textButton("Delete", () => this.change(() => this.trash()));
    this.state = new NotebookState();
    this.problem = h("div", { class: "notice", role: "alert", hidden: true });
    this.offers = new DraftOffers(this);
    this.element = h("section", { class: "notebook", "aria-label": "Notebook" },
      h("div", { class: "row bar" }, this.pagesButton, this.newButton, this.versionsButton, this.trashButton), this.problem, this.offers.element, this.area,
      h("div", { class: "row bar" }, this.generateButton, this.undoButton, this.redoButton, this.state.element));
    document.addEventListener("visibilitychange", () => document.hidden && this.autosave());
    addEventListener("online", () => this.state.isLost && !this.run && this.autosave());
  }

  // What is shown

  async load() {
    const answer = await get("notebook/shown");
    this.show(answer.document);
  }

  show(found, { keepText = false } = {}) {
    if (found?.id !== this.document?.id) this.leaveRun();
    this.document = found;
    this.state.watchSaving(found?.id, found?.unsaved ?? "");
    if (!keepText) this.setText(found?.text ?? "");
    if (found?.run && found.run !== this.run) this.follow(found.run);
    if (!keepText && !this.run) this.offers.recover();
    this.draw();
  }

  /** Another page is shown; the run goes on writing to its own. */
  leaveRun() {
    this.following?.leave();
    this.run = "";
    this.state.sayLost("");
    this.state.forgetRun();
  }

  setText(text) {
    if (this.area.value !== text) this.area.value = text;
  }

  draw() {
    const writes = Boolean(this.run);
    this.generateButton.textContent = writes ? "Stop" : "Generate";
    this.generateButton.title = writes ? "Escape" : "Ctrl+Enter";
    this.generateButton.classList.toggle("stop", writes);
    this.area.readOnly = writes || this.isChanging;
    this.undoButton.disabled = writes || this.isChanging || !this.document?.can_undo;
    this.redoButton.disabled = writes || this.isChanging || !this.document?.can_redo;
    this.trashButton.disabled = this.isChanging || !this.document;
    this.versionsButton.disabled = writes || this.isChanging || !this.document;
    this.newButton.disabled = this.pagesButton.disabled = this.isChanging;
    this.title.textContent = this.document ? this.document.title || "Untitled" : "Choose a page";
    this.generateButton.disabled = this.isChanging && !writes;
  }

  /** A page has another title now. */
  renamed(id, title) {
    if (id !== this.document?.id) return;
    this.document.title = title;
    this.draw();
  }

  // Writing

  typed() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.autosave(), SAVE_PAUSE);
    this.keepDraft();
  }

  /** Save what is typed; where the server is gone say so and try again. */
  async autosave() {
    try {
      await this.save();
      if (!this.run) this.state.sayLost("");
      if (this.isRefused) this.problem.hidden = true;
      this.isRefused = false;
    } catch (error) {
      this.isRefused = error.code !== "offline";
      if (this.isRefused) return this.complain(error.message);
      this.state.sayLost(LOST_TYPING);
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.autosave(), RETRY);
    }
  }

  /** Words that were typed before the page was loaded anew. */
  goOnWith(text) {
    this.setText(text);
    this.typed();
  }

  /** What is typed but not saved survives a reload, a crash and a server that is gone. */
  keepDraft() {
    this.state.sayKept(true);
    if (this.area.value === (this.document?.text ?? "")) return dropDraft(this.document);
    try {
      keepDraft(this.document, this.area.value);
    } catch (error) {
      console.warn("The draft could not be kept:", error); // storage is full or forbidden
      this.state.sayKept(false);
    }
  }

  key(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      if (!this.run) this.generateOrStop();
    } else if (event.key === "Escape" && this.run) {
      event.preventDefault();
      this.generateOrStop();
    }
  }

  /** Save what is typed as a version; the answer's text is not put back, since typing may have gone on. */
  async save() {
    clearTimeout(this.timer);
    while (this.saving) await this.saving.catch(() => {}); // whoever began it says why it failed
    const text = this.area.value;
    if (this.run || text === (this.document?.text ?? "")) return;
    this.saving = this.saveText(text);
    try {
      await this.saving;
    } finally {
      this.saving = null;
    }
  }

  async saveText(text) {
    const before = this.document;
    const answer = before
      ? await post("notebook/save", { document: before.id, text, base: before.version })
      : await post("notebook/new", { text });
    dropDraft(before);
    this.state.sayKept(true);
    this.show(answer.document, { keepText: true });
    if (this.area.value !== text) this.typed(); // over the new version
  }

  async step(name) {
    await this.change(async () => {
      await this.save();
      this.show((await post(`notebook/${name}`, { document: this.document.id })).document);
    });
  }

  async begin() {
    await this.save();
    this.show((await post("notebook/new", { text: "" })).document);
    this.area.focus();
  }

  async open(id) {
    await this.save();
    this.show((await post("notebook/open", { document: id })).document);
  }

  async trash() {
    await this.save();
    const gone = this.document;
    await post("notebook/trash", { document: gone.id });
    this.show(null);
    this.tell(`“${gone.title || "Untitled"}” is in the trash.`, textButton("Undo", () => this.change(async () => {
      await post("notebook/restore", { document: gone.id });
      this.problem.hidden = true;
      await this.open(gone.id);
    })));
  }

  // The model

  generateOrStop() {
    if (this.run) return this.try(() => post("stop", { run: this.run }));
    return this.change(async () => {
      if (!this.document) await this.save();
      if (!this.document) throw new Error("The page is empty; write a few words to continue from.");
      const text = this.area.value;
      clearTimeout(this.timer);
      const answer = await post("notebook/generate", { document: this.document.id, text, base: this.document.version });
      dropDraft(this.document);
      this.show(answer.document, { keepText: true });
    });
  }

  /** Append the run's text as it comes. */
  follow(run) {
    this.run = run;
    this.state.endWatching();
    this.state.forgetRun();
    this.setText(this.document.text);
    this.following = new PageRun(run, { onFrame: (frame) => this.take(frame), onConnection: (isThere) => this.state.sayLost(isThere ? "" : LOST),
      onGone: () => this.ended() });
    this.draw();
  }

  take(frame) {
    if (frame.text) this.append(frame.text);
    this.state.take(frame);
    if (frame.error) this.complain(frame.error);
    if (frame.saved) this.ended();
  }

  append(text) {
    const area = this.area;
    const isAtEnd = area.scrollHeight - area.scrollTop - area.clientHeight < 40;
    area.setRangeText(text, area.value.length, area.value.length, "preserve");
    if (isAtEnd) area.scrollTop = area.scrollHeight;
  }

  async ended() {
    this.run = "";
    await this.try(async () => {
      this.show((await get("notebook/shown")).document);
    });
    this.draw();
  }

  // One after the other, and errors

  /** Do what shows another text, one at a time; nobody types meanwhile, since those words would go with the old text. */
  async change(work) {
    if (this.isChanging) return;
    this.isChanging = true;
    this.draw();
    await this.try(work);
    this.isChanging = false;
    this.draw();
  }

  async try(work) {
    try {
      await work();
    } catch (error) {
      this.complain(error.message ?? String(error));
    }
  }

  complain(text) {
    this.tell(text);
    this.problem.classList.add("error");
  }

  tell(text, ...more) {
    this.problem.classList.remove("error");
    this.problem.replaceChildren(h("span", { text }), ...more, textButton("Dismiss", () => { this.problem.hidden = true; }));
    this.problem.hidden = false;
  }
}

let page = null;

/** Show the notebook in `element`; it keeps its state when its place on the page changes. */
export async function mount(element) {
  await stylesheet(new URL("notebook.css", import.meta.url).href);
  const isNew = !page;
  page ??= new NotebookPage();
  const place = element.querySelector(".colloquy-notebook");
  place.replaceChildren(page.element);
  fillWindow(place);
  if (isNew) await page.try(() => page.load());
  window.notebookReady = true; // tests wait for it
}
