// The list of chats: paged, searched, renamed, thrown away and brought back.

import { get, post } from "./api.js";
import { draftedChats } from "./composer.js";
import { confirmed } from "./dialog.js";
import { h, iconButton, textButton } from "./dom.js";
import { hasFocus, hide } from "./focus.js";
import { attempt, offerUndo } from "./notices.js";

const SEARCH_PAUSE = 200; // milliseconds after the last key

export class ChatList {
  constructor(conversation) {
    this.conversation = conversation;
    this.rows = [];
    this.hasMore = false;
    this.isTrash = false;
    this.asked = 0;
    this.search = h("input", { type: "search", placeholder: "Search chats", "aria-label": "Search chats", dir: "auto" });
    this.search.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.load(), SEARCH_PAUSE);
    });
    this.begin = h("button", { type: "button", class: "plain primary new", onclick: () => conversation.begin() }, "New chat");
    this.heading = h("h2", { text: "Trash", hidden: true });
    this.list = h("ul", { class: "rows" });
    this.more = textButton("More", () => this.load(this.rows.length), { hidden: true });
    this.nothing = h("p", { class: "nothing", hidden: true });
    this.purge = textButton("Empty the trash", () => this.emptyTrash(), { hidden: true });
    this.toggle = textButton("Trash", () => this.show(!this.isTrash), { "aria-pressed": "false" });
    this.element = h("nav", { class: "chats", "aria-label": "Chats" }, this.begin, this.search, this.heading, this.list, this.nothing, this.more,
      h("div", { class: "row" }, this.toggle, this.purge));
    this.list.addEventListener("scroll", () => {
      const left = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight;
      if (this.hasMore && left < 200) this.load(this.rows.length);
    }, { passive: true });
    for (const event of ["saved", "opened"]) conversation.addEventListener(event, () => this.load());
    conversation.addEventListener("shown", () => this.mark());
  }

  show(isTrash) {
    this.isTrash = isTrash;
    this.toggle.textContent = isTrash ? "Back to the chats" : "Trash";
    this.toggle.setAttribute("aria-pressed", String(isTrash));
    this.heading.hidden = !isTrash;
    return this.load();
  }

  /** Load from `offset` on; 0 draws anew. An answer that a newer question has overtaken is dropped. */
  async load(offset = 0) {
    if (offset && this.isLoading) return;
    const asked = ++this.asked;
    this.isLoading = true;
    await attempt(async () => {
      // A chat that nobody has written in is not listed; one with unsent words is, or they could not be found again.
      const query = { query: this.search.value.trim(), offset, trashed: this.isTrash ? 1 : 0, drafts: draftedChats().join(",") };
      const answer = await get("chats", query);
      if (asked !== this.asked) return;
      const known = new Set(offset ? this.rows.map((chat) => chat.id) : []);
      const fresh = answer.chats.filter((chat) => !known.has(chat.id));
      this.rows = offset ? [...this.rows, ...fresh] : fresh;
      this.hasMore = answer.more;
      const elements = fresh.map((chat) => this.row(chat));
      if (offset) this.list.append(...elements);
      else if (!this.list.querySelector("input")) this.replaceRows(elements); // not under somebody who renames
      this.draw();
    });
    if (asked === this.asked) this.isLoading = false;
  }

  /** The keyboard stays on the same button of the same chat, or of the one that is now in its place. */
  replaceRows(elements) {
    const rows = Array.from(this.list.children);
    const place = rows.findIndex(hasFocus);
    const button = place < 0 ? -1 : Array.from(rows[place].querySelectorAll("button")).indexOf(document.activeElement);
    this.list.replaceChildren(...elements);
    if (place < 0) return;
    const same = elements.find((row) => row.dataset.chat === rows[place].dataset.chat) ?? elements[Math.min(place, elements.length - 1)];
    const heir = same?.querySelectorAll("button")[button] ?? (this.isTrash ? this.toggle : this.begin);
    heir.focus({ preventScroll: Boolean(same) });
  }

  draw() {
    const query = this.search.value.trim();
    hide(this.more, !this.hasMore, () => this.list.lastElementChild?.querySelector("button:enabled").focus());
    this.nothing.hidden = this.rows.length > 0;
    this.nothing.textContent = query ? `Nothing found for “${query}”.` : this.isTrash ? "The trash is empty." : "No chats yet.";
    hide(this.purge, !this.isTrash || !this.rows.length, () => this.toggle.focus());
    this.mark();
  }

  mark() {
    for (const element of this.list.children) {
      const isOpen = element.dataset.chat === this.conversation.facts.conversation;
      element.classList.toggle("open", isOpen);
      element.firstChild.toggleAttribute("aria-current", isOpen);
    }
  }

  row(chat) {
    const title = chat.title || "Untitled";
    const when = new Date(chat.updated * 1000);
    const open = h("button", { type: "button", class: "chat", title: `${title}\n${when.toLocaleString()}`, disabled: this.isTrash,
      onclick: () => this.conversation.open(chat.id) },
    h("span", { class: "title", text: title, dir: "auto" }),
    h("span", { class: "about", text: [chat.character, shortDate(when)].filter(Boolean).join(" · "), dir: "auto" }),
    chat.snippet ? h("span", { class: "snippet", text: chat.snippet, dir: "auto" }) : null);
    const buttons = this.isTrash
      ? [iconButton("restore", `Restore “${title}”`, () => this.act("restore", chat)),
        iconButton("bin", `Delete “${title}” for good`, () => this.purgeOne(chat))]
      : [iconButton("edit", `Rename “${title}”`, () => this.rename(element, chat)),
        iconButton("bin", `Move “${title}” to the trash`, () => this.trash(chat))];
    const element = h("li", { "data-chat": chat.id }, open, h("span", { class: "actions" }, ...buttons));
    return element;
  }

  rename(element, chat) {
    const input = h("input", { type: "text", value: chat.title, maxlength: 500, "aria-label": "New title", dir: "auto" });
    let isDone = false;
    const finish = async (keep) => {
      if (isDone) return;
      isDone = true;
      const title = input.value.trim();
      const isRenamed = keep && title && title !== chat.title;
      if (isRenamed) {
        isDone = await attempt(() => post("rename", { conversation: chat.id, title }));
        if (!isDone) return; // the input stays, with what was typed
      }
      const row = this.row(isRenamed ? { ...chat, title } : chat);
      const had = hasFocus(input);
      element.replaceWith(row);
      this.mark();
      if (had) row.querySelector(".actions button").focus(); // the one that opened this
      await this.load();
    };
    input.addEventListener("keydown", (event) => {
      if (event.isComposing) return; // both keys then belong to an input method
      if (event.key === "Enter") finish(true);
      else if (event.key === "Escape") finish(false);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    input.addEventListener("blur", () => finish(true));
    element.replaceChildren(input);
    input.focus();
    input.select();
  }

  act(path, chat) {
    return attempt(async () => {
      await post(path, { conversation: chat.id });
      await this.load();
    });
  }

  trash(chat) {
    return attempt(async () => {
      const wasOpen = chat.id === this.conversation.facts.conversation;
      await post("trash", { conversation: chat.id });
      if (wasOpen) await this.conversation.begin();
      await this.load();
      offerUndo(`“${chat.title || "Untitled"}” is in the trash.`, async () => {
        await post("restore", { conversation: chat.id });
        if (wasOpen) await this.conversation.open(chat.id);
        await this.load();
      });
    });
  }

  async purgeOne(chat) {
    if (await confirmed(`Delete “${chat.title || "Untitled"}” for good? This cannot be undone.`)) await this.act("purge", chat);
  }

  async emptyTrash() {
    if (await confirmed("Delete all chats in the trash for good? This cannot be undone.")) await this.act("purge", { id: "" });
  }
}

function shortDate(when) {
  const isToday = when.toDateString() === new Date().toDateString();
  return isToday ? when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }) : when.toLocaleDateString();
}
