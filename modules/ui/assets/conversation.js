// The open chat: its messages, the runs it follows, and every action on it. One for the page; views listen to its events.

import { AnswerAgain } from "./answer_again.js";
import { get, post } from "./api.js";
import { copyText, h } from "./dom.js";
import { holdFocus } from "./focus.js";
import { MessageView } from "./message.js";
import { announce, attempt, offerUndo } from "./notices.js";
import { Scroll } from "./scroll.js";
import { Stream } from "./stream.js";

const SAVING_PAUSE = 3000; // milliseconds between two questions whether a reply is on disk

export class Conversation extends EventTarget {
  constructor() {
    super();
    this.views = [];
    this.streams = new Map(); // of live messages, by node id
    this.facts = { conversation: "", title: "", head: null, names: {}, elsewhere: [], again: [], loaders: {} };
    this.branch = null; // the node id under which the next message goes, where that is not the head
    this.hasMore = false;
    this.isBusy = false;
    this.lostRuns = 0;
    this.asked = this.shown = 0; // requests that answer with what to show, numbered
    this.list = h("div", { class: "list", role: "log", "aria-live": "off", "aria-label": "Conversation" });
    this.empty = h("div", { class: "empty" }, h("h2", { text: "Say something to begin." }),
      h("p", { text: "Everything you write stays on this computer." }),
      h("p", { class: "keys", text: "Enter sends, Shift+Enter begins a new line, Escape stops a reply." }));
    this.older = h("div", { class: "older", hidden: true, text: "Earlier messages…" });
    this.element = h("div", { class: "messages", tabindex: "0", "aria-label": "Messages" }, this.older, this.empty, this.list);
    this.scroll = new Scroll(this.element, () => this.loadOlder());
    this.element.addEventListener("click", jumpToFootnote);
    this.answerAgain = new AnswerAgain(this);
    this.actions = {
      regenerate: (view) => this.turn("regenerate", { node: view.facts.id }),
      again: (view) => this.answerAgain.choose(view),
      loaderTitle: (name) => this.facts.loaders?.[name] ?? name,
      continue: (view) => this.turn("continue", { node: view.facts.id }),
      choose: (view, node) => this.turn("choose", { node }),
      copy: (view) => this.copy(view),
      edit: (view) => this.edit(view),
      branch: (view) => this.branchAt(view.facts.id),
      remove: (view) => this.remove(view),
    };
  }

  get head() {
    return this.views.at(-1)?.facts.id ?? null;
  }

  get isStreaming() {
    return this.streams.size > 0;
  }

  // --- What is shown

  load() {
    return this.show(get("view"));
  }

  /** Show the answer of a request. Where a later one was shown meanwhile, or it does not fit, all is asked for again. */
  async show(request) {
    const asked = ++this.asked;
    const answer = await request;
    const fits = answer.after === undefined || this.views.some((view) => view.facts.id === answer.after);
    if (asked < this.shown || !fits) {
      await this.load();
    } else {
      this.shown = asked;
      this.take(answer);
    }
    return answer;
  }

  /** Show an answer of the server: the messages after `after`, or all where there is no `after` or it is not shown. */
  take(answer) {
    const keep = answer.after === undefined ? -1 : this.views.findIndex((view) => view.facts.id === answer.after);
    const wasOther = answer.conversation !== this.facts.conversation;
    if (keep < 0) this.hasMore = answer.more;
    const giveFocus = holdFocus(this.views.slice(keep + 1));
    for (const view of this.views.splice(keep + 1)) this.drop(view);
    const { conversation, title, head, names, elsewhere, again, loaders } = answer;
    this.facts = { conversation, title, head, names, elsewhere, again, loaders };
    this.branch = null;
    const views = answer.messages.map((facts) => new MessageView(facts, this.actions));
    this.views.push(...views);
    this.list.append(...views.map((view) => view.element));
    measureOnce(views);
    for (const view of views) {
      if (view.isLive) this.followRun(view);
      if (view.facts.stats.unsaved) this.watchSaving(view);
    }
    this.changed();
    giveFocus(this.views);
    if (wasOther || keep < 0) this.scroll.follow(true);
    this.scroll.afterChange();
    this.dispatchEvent(new Event("shown"));
  }

  drop(view) {
    this.streams.get(view.facts.id)?.end();
    this.streams.delete(view.facts.id);
    view.element.remove();
  }

  changed() {
    this.empty.hidden = this.views.length > 0;
    this.older.hidden = !this.hasMore;
    for (const view of this.views) view.element.classList.remove("last");
    this.views.at(-1)?.element.classList.add("last");
    this.list.setAttribute("aria-busy", String(this.isStreaming));
    this.dispatchEvent(new Event("change"));
  }

  async loadOlder() {
    if (!this.hasMore || this.isLoading || !this.views.length) return;
    this.isLoading = true;
    const first = this.views[0];
    await attempt(async () => {
      const answer = await get("view", { before: first.facts.id });
      if (this.views[0] !== first) return; // another chat was opened meanwhile
      const views = answer.messages.map((facts) => new MessageView(facts, this.actions));
      this.hasMore = answer.more && views.length > 0;
      this.scroll.keep(first.element, () => {
        this.older.hidden = !this.hasMore;
        this.list.prepend(...views.map((view) => view.element));
      });
      this.views.unshift(...views);
      measureOnce(views);
      this.answerAgain.draw();
    });
    this.isLoading = false;
    this.scroll.look(); // a short page of messages leaves the reader near the top
  }

  // --- Following

  followRun(view) {
    const node = view.facts.id;
    this.streams.set(node, new Stream(view.facts.run, {
      onFrame: (frame, ended) => {
        view.takeFrame(frame);
        this.scroll.afterChange();
        if (ended) this.ended(view);
      },
      onConnection: (isConnected) => view.setConnected(isConnected),
      onGone: () => this.runIsGone(node),
    }));
  }

  ended(view) {
    this.streams.delete(view.facts.id);
    this.lostRuns = 0;
    this.changed();
    announce({ failed: "The reply failed.", stopped: "Reply stopped." }[view.facts.status] ?? "Reply finished.");
    this.watchSaving(view);
  }

  /** Ask whether an ended reply is on disk and say under it why not, until it is. */
  async watchSaving(view) {
    let reason = view.facts.stats.unsaved ?? "";
    do {
      if (reason) await new Promise((go) => setTimeout(go, SAVING_PAUSE));
      const before = reason;
      reason = await this.unsavedReason(view);
      view.setUnsaved(reason);
      if (reason && !before) announce(reason);
      this.scroll.afterChange();
    } while (reason && this.views.includes(view));
    this.dispatchEvent(new Event("saved"));
  }

  async unsavedReason(view) {
    try {
      return (await get("unsaved", { node: view.facts.id })).reason;
    } catch (error) {
      console.warn(error);
      return "The server does not say whether this reply is saved; it is asked again every few seconds.";
    }
  }

  /** The server does not know the run (any more): what was saved is the truth. */
  async runIsGone(node) {
    this.streams.delete(node);
    this.changed();
    if (this.lostRuns++ < 3) await attempt(() => this.load());
  }

  // --- Actions

  /** Ask for a turn and show what it wrote; resolves to whether it worked. One at a time. */
  async turn(path, body) {
    if (this.isBusy) return false;
    this.isBusy = true;
    const worked = await attempt(async () => {
      await this.show(post(path, body));
      this.scroll.toEnd();
      this.dispatchEvent(new Event("saved"));
    });
    this.isBusy = false;
    return worked;
  }

  send(text) {
    return this.turn("send", { text, conversation: this.facts.conversation, under: this.branch ?? this.head });
  }

  stop() {
    return this.stopRuns(this.views.filter((view) => this.streams.has(view.facts.id)).map((view) => view.facts.run));
  }

  async stopRuns(runs) {
    await attempt(() => Promise.all(runs.map((run) => post("stop", { run }))));
  }

  async copy(view) {
    await attempt(async () => {
      await copyText(await this.textOf(view));
      announce("Copied.");
      view.element.classList.add("copied");
      setTimeout(() => view.element.classList.remove("copied"), 1200);
    });
  }

  async textOf(view) {
    return (await get("text", { node: view.facts.id })).text;
  }

  edit(view) {
    const opener = document.activeElement;
    return attempt(async () => view.openEditor(await this.textOf(view), opener,
      (text, resend) => this.turn("edit", { node: view.facts.id, text, resend })));
  }

  editLast() {
    const view = this.views.findLast((one) => one.facts.role === "user");
    if (view) this.edit(view);
  }

  async remove(view) {
    const conversation = this.facts.conversation;
    await attempt(async () => {
      const answer = await this.show(post("delete", { node: view.facts.id }));
      const text = answer.hidden.length > 1 ? `Deleted ${answer.hidden.length} messages.` : "Message deleted.";
      offerUndo(text, async () => {
        if (this.facts.conversation !== conversation) await this.show(post("open", { conversation }));
        await this.show(post("undelete", { nodes: answer.hidden, head: answer.head_before }));
      });
    });
  }

  /** The next message goes under this one, beside what follows it now. */
  branchAt(node) {
    this.branch = node;
    this.dispatchEvent(new Event("change"));
    this.dispatchEvent(new Event("branch"));
  }

  endBranch() {
    this.branch = null;
    this.dispatchEvent(new Event("change"));
  }

  /** A new chat with this character; null keeps the one chosen, "" is nobody. */
  begin(character = null) {
    return this.opening("new", character === null ? {} : { character });
  }

  open(conversation) {
    return this.opening("open", { conversation });
  }

  opening(path, body) {
    return attempt(async () => {
      await this.show(post(path, body));
      this.dispatchEvent(new Event("opened"));
    });
  }
}

/** Lay each message out once in full; after that the browser may skip those out of sight, because it remembers their height. */
function measureOnce(views) {
  requestAnimationFrame(() => requestAnimationFrame(() => {
    for (const view of views) view.element.classList.add("measured");
  }));
}

function jumpToFootnote(event) {
  const link = event.target.closest("a[href^='#fn-']");
  if (!link) return;
  event.preventDefault();
  const label = decodeURIComponent(link.getAttribute("href").slice(4));
  const note = link.closest(".md").querySelector(`[data-fn="${CSS.escape(label)}"]`);
  note?.scrollIntoView({ block: "nearest" });
}
