// Puts the chat and the list of chats into their places on the page, which Gradio may make anew at any time.

import { ChatList } from "./chat_list.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { fillWindow, h } from "./dom.js";
import { Elsewhere } from "./elsewhere.js";
import { listenForEscape } from "./escape.js";
import { attempt, notices } from "./notices.js";

const parts = {};

/** Show the part "chat" or "chats" in `element`. The same part keeps its state when its place changes. */
export async function mount(element, part) {
  await style();
  const page = parts.page ??= makePage();
  const place = element.querySelector(`.colloquy-${part}`);
  place.replaceChildren(page[part]);
  if (part === "chat") {
    fillWindow(place);
    page.conversation.scroll.afterChange();
  } else {
    closeSidebar();
  }
  await page.loaded;
  window.viewReady = true; // tests wait for it
}

function makePage() {
  const conversation = new Conversation();
  const composer = new Composer(conversation);
  const chats = new ChatList(conversation);
  const chat = h("section", { class: "colloquy", "aria-label": "Chat" }, conversation.element, conversation.scroll.jump, notices,
    new Elsewhere(conversation).element, composer.element);
  listenForEscape(chat, conversation);
  conversation.addEventListener("opened", closeSidebar);
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("#model-line a[href='#tab-model']");
    if (!link) return;
    event.preventDefault();
    document.getElementById("tab-model-button")?.click(); // Gradio's name for the button of the tab #tab-model
  });
  const loaded = Promise.all([attempt(() => conversation.load()), chats.load()]);
  // For the page's other parts, such as the choice of a character: begin, open, load.
  window.colloquyChat = conversation;
  return { conversation, chat, chats: chats.element, loaded };
}

/** On a narrow screen the list of chats covers the chat: it goes away once one is chosen. */
function closeSidebar() {
  if (innerWidth < 768) document.querySelector(".sidebar.open:has(.colloquy-chats) .toggle-button")?.click();
}

function style() {
  if (document.getElementById("colloquy-style")) return Promise.resolve();
  return new Promise((resolve) => {
    const address = new URL("style.css", import.meta.url).href;
    document.head.append(h("link", { id: "colloquy-style", rel: "stylesheet", href: address, onload: resolve, onerror: resolve }));
  });
}
