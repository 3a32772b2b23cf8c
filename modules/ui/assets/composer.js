// The box one writes in: grows with its text, keeps a draft for each chat, sends, and stops the reply.

import { session } from "./api.js";
import { h, icon, textButton } from "./dom.js";
import { focusComposer, hasFocus, hide } from "./focus.js";

const SAVE_PAUSE = 150; // milliseconds after the last key
const DRAFT = "colloquy-draft-"; // then the chat's id, or "new-" and the session's

/** Ids of the chats that this browser keeps unsent words for. */
export function draftedChats() {
  return Object.keys(localStorage).filter((key) => key.startsWith(DRAFT) && !key.startsWith(`${DRAFT}new-`))
    .map((key) => key.slice(DRAFT.length));
}

export class Composer {
  constructor(conversation) {
    this.conversation = conversation;
    this.area = h("textarea", { rows: 1, placeholder: "Message", "aria-label": "Message", dir: "auto", autocomplete: "off",
      enterkeyhint: "send" });
    this.button = h("button", { type: "submit", class: "send" });
    this.branch = h("div", { class: "branching", hidden: true }, h("span", { text: "Your next message starts a branch at the marked message." }),
      textButton("Cancel", () => conversation.endBranch()));
    this.element = h("form", { class: "composer", onsubmit: (event) => this.submit(event) }, this.branch,
      h("div", { class: "row" }, this.area, this.button));
    this.area.addEventListener("input", () => this.typed());
    this.area.addEventListener("keydown", (event) => this.key(event));
    addEventListener("pagehide", () => this.save());
    conversation.addEventListener("change", () => this.draw());
    conversation.addEventListener("shown", () => this.openDraft());
    conversation.addEventListener("branch", () => this.area.focus());
    this.draftKey = "";
    this.draw();
  }

  draw() {
    const stops = this.conversation.isStreaming;
    const label = stops ? "Stop (Escape)" : "Send (Enter)";
    if (this.button.title !== label) {
      this.button.replaceChildren(icon(stops ? "stop" : "send"));
      this.button.title = label;
      this.button.setAttribute("aria-label", stops ? "Stop" : "Send");
      this.button.classList.toggle("stop", stops);
    }
    const losesFocus = hasFocus(this.button);
    this.button.disabled = !stops && !this.area.value.trim();
    if (losesFocus && this.button.disabled) focusComposer();
    hide(this.branch, this.conversation.branch === null);
    for (const view of this.conversation.views) {
      view.element.classList.toggle("branch-point", view.facts.id === this.conversation.branch);
    }
  }

  typed() {
    this.fit();
    this.draw();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.save(), SAVE_PAUSE);
  }

  fit() {
    this.area.style.height = "auto";
    this.area.style.height = `${this.area.scrollHeight + 2}px`;
  }

  key(event) {
    if (event.isComposing) return; // Enter then chooses a word of an input method
    const isTouch = matchMedia("(pointer: coarse)").matches;
    if (event.key === "Enter" && !event.shiftKey && !event.altKey && (!isTouch || event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      if (!this.conversation.isStreaming) this.submit();
    } else if (event.key === "ArrowUp" && !this.area.value) {
      event.preventDefault();
      this.conversation.editLast();
    }
  }

  async submit(event) {
    event?.preventDefault();
    if (this.conversation.isStreaming) return this.conversation.stop();
    const text = this.area.value;
    if (!text.trim()) return;
    this.isSending = true;
    const worked = await this.conversation.send(text);
    this.isSending = false;
    if (!worked) return; // the text stays where it is
    if (this.area.value.startsWith(text)) this.area.value = this.area.value.slice(text.length); // typed meanwhile: stays
    this.typed();
    this.save();
  }

  // --- Drafts: one for each chat, and one for the chat that has no message yet

  openDraft() {
    const key = `${DRAFT}${this.conversation.facts.conversation || `new-${session()}`}`;
    if (key === this.draftKey) return;
    if (this.isSending) { // its first message gave this chat its id: what is typed since belongs to it
      localStorage.removeItem(this.draftKey);
      this.draftKey = key;
      return;
    }
    this.save();
    this.draftKey = key;
    this.area.value = localStorage.getItem(key) ?? "";
    this.fit();
    this.draw();
  }

  save() {
    if (!this.draftKey) return;
    try {
      if (this.area.value) localStorage.setItem(this.draftKey, this.area.value);
      else localStorage.removeItem(this.draftKey);
    } catch (error) {
      console.warn("The draft could not be kept:", error); // storage is full or forbidden
    }
  }
}
