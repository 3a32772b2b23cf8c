// Lines that come and can be sent away: what went wrong, and what can be undone. Also what a screen reader is told.

import { h, iconButton, textButton } from "./dom.js";
import { hasFocus, remove } from "./focus.js";

const UNDO_SECONDS = 12;

export const notices = h("div", { class: "notices" });
const spoken = h("div", { class: "unseen", role: "status" });
notices.append(spoken);

/** Say it to screen readers only. */
export function announce(text) {
  spoken.textContent = text;
}

/** A line that stays until it is dismissed; the same line twice is shown once. */
export function complain(error) {
  const text = error.message ?? String(error);
  for (const line of notices.querySelectorAll(".error")) {
    if (line.firstChild.textContent === text) line.remove();
  }
  const line = h("div", { class: "notice error", role: "alert" }, h("span", { text }));
  line.append(iconButton("close", "Dismiss", () => remove(line)));
  notices.append(line);
}

/** Say what was done, with a button that takes it back. */
export function offerUndo(text, undo) {
  const line = h("div", { class: "notice", role: "status" }, h("span", { text }));
  const take = async () => {
    remove(line);
    try {
      await undo();
    } catch (error) {
      complain(error);
    }
  };
  line.append(textButton("Undo", take), iconButton("close", "Dismiss", () => remove(line)));
  notices.append(line);
  leaveInTime(line, UNDO_SECONDS);
}

/** Take the line away once nobody has pointed at it, or had the keyboard in it, for so many seconds. */
function leaveInTime(line, seconds) {
  let timer = 0;
  let isPointedAt = false;
  const wait = () => {
    clearTimeout(timer);
    if (!isPointedAt && !hasFocus(line)) timer = setTimeout(() => remove(line), seconds * 1000);
  };
  line.addEventListener("pointerenter", () => {
    isPointedAt = true;
    wait();
  });
  line.addEventListener("pointerleave", () => {
    isPointedAt = false;
    wait();
  });
  line.addEventListener("focusin", wait);
  line.addEventListener("focusout", () => setTimeout(wait)); // when what gets the keyboard has it
  wait();
}

/** Run it; what it throws is shown as a line and loses nothing. Returns whether it worked. */
export async function attempt(work) {
  try {
    await work();
    return true;
  } catch (error) {
    console.warn(error);
    complain(error);
    return false;
  }
}
