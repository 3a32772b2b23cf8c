// Words typed in the notebook that are not saved yet: kept in this browser, each with the version that it was typed over.

import { session } from "./api.js";

const PREFIX = "colloquy-notebook-draft/"; // then the session, the document ("" before its first save), the version, the page load
const LOAD = crypto.getRandomValues(new Uint32Array(2)).join("-"); // a tab that was copied has the same session as the first

const keyOf = (document) => `${PREFIX}${session()}/${document?.id ?? ""}/${document?.version ?? 0}/${LOAD}`;

/** Keep `text`, typed over this version of the document (null: over an empty page); throws where the browser has no room for it. */
export function keepDraft(document, text) {
  localStorage.setItem(keyOf(document), JSON.stringify({ text, title: document?.title ?? "", when: Date.now() }));
}

/** This page's own draft over this version of the document is saved or taken back. */
export function dropDraft(document) {
  localStorage.removeItem(keyOf(document));
}

/** The drafts of all tabs, open or closed, the oldest first: key, session, document, version, text, title, when (ms). */
export function drafts() {
  return Object.keys(localStorage).filter((key) => key.startsWith(PREFIX)).map((key) => {
    const [session, document, version] = key.slice(PREFIX.length).split("/");
    return { key, session, document, version: Number(version), ...JSON.parse(localStorage.getItem(key)) };
  }).sort((one, other) => one.when - other.when);
}

/** Whether this is what the same tab had typed over what is shown now, before it was loaded anew. */
export function goesOn(draft, document) {
  return draft.session === session() && draft.document === (document?.id ?? "") && draft.version === (document?.version ?? 0);
}

/** Whether it is this page load's own, which needs no offer. */
export function isOwn(draft) {
  return draft.key.endsWith(`/${LOAD}`);
}

export function forgetDraft(draft) {
  localStorage.removeItem(draft.key);
}

/** Call back when another tab has saved or dropped one of its drafts. */
export function onDraftGone(then) {
  addEventListener("storage", (event) => {
    if (event.key === null || (event.key.startsWith(PREFIX) && event.newValue === null)) then();
  });
}
