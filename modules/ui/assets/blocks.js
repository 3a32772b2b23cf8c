// The blocks of one text: applies the server's updates, and changes only those nodes of the page that differ.
// The HTML comes sanitised from the server; see modules/ui/sanitize.py.

import { copyText, iconButton } from "./dom.js";

const OURS = "ours"; // marks nodes that this page put into a block; the server's HTML cannot carry it

export class Blocks {
  /** `element` may already hold blocks of a saved message; they go when the first update comes. */
  constructor(element) {
    this.element = element;
    this.html = [];
    this.isFresh = true;
  }

  /** count: how many blocks there are now; updates: [index, keep, append] in characters of the block's HTML. */
  apply([count, updates]) {
    if (this.isFresh) this.element.replaceChildren();
    this.isFresh = false;
    while (this.html.length < count) {
      this.html.push("");
      const block = document.createElement("div");
      block.className = "b";
      this.element.append(block);
    }
    while (this.html.length > count) {
      this.html.pop();
      this.element.lastElementChild.remove();
    }
    const template = document.createElement("template");
    for (const [index, keep, append] of updates) {
      this.html[index] = this.html[index].slice(0, keep) + append;
      template.innerHTML = this.html[index];
      const block = this.element.children[index];
      morph(block, template.content);
      decorate(block);
    }
  }
}

/** Give each code block its Copy button. */
export function decorate(element) {
  for (const code of element.querySelectorAll("div.code")) {
    if (code.lastElementChild?.dataset.mark === OURS) continue;
    code.append(iconButton("copy", "Copy this code", copyCode, { class: "icon copy-code", "data-mark": OURS }));
  }
}

async function copyCode(event) {
  const button = event.currentTarget;
  await copyText(button.parentElement.querySelector("pre").textContent);
  button.classList.add("done");
  setTimeout(() => button.classList.remove("done"), 1200);
}

/** Make `old`'s children like those of `fresh`, keeping nodes (and a text selection in them) that stay. */
function morph(old, fresh) {
  let before = old.firstChild;
  let after = fresh.firstChild;
  while (after) {
    const next = after.nextSibling;
    if (!before || before.dataset?.mark === OURS) {
      old.insertBefore(after, before);
    } else {
      const following = before.nextSibling;
      if (!before.isEqualNode(after)) reconcile(old, before, after);
      before = following;
    }
    after = next;
  }
  while (before) {
    const following = before.nextSibling;
    if (before.dataset?.mark !== OURS) before.remove();
    before = following;
  }
}

function reconcile(parent, before, after) {
  if (before.nodeType === Node.TEXT_NODE && after.nodeType === Node.TEXT_NODE) {
    if (after.data.startsWith(before.data)) before.appendData(after.data.slice(before.data.length));
    else before.data = after.data;
  } else if (isSameTag(before, after)) {
    morph(before, after);
  } else {
    parent.replaceChild(after, before);
  }
}

function isSameTag(one, two) {
  if (one.nodeType !== Node.ELEMENT_NODE || one.nodeName !== two.nodeName || one.namespaceURI !== two.namespaceURI) return false;
  if (one.nodeName === "DETAILS") return true; // whether it is open is the reader's business
  if (one.attributes.length !== two.attributes.length) return false;
  return Array.from(two.attributes).every((attribute) => one.getAttribute(attribute.name) === attribute.value);
}
