// The notebook's line of state: what a run does and left out, and what is not on disk, not kept or not connected.

import { get } from "./api.js";
import { h } from "./dom.js";

const SAVING_PAUSE = 3000; // milliseconds between two questions whether what was written is on disk

export class NotebookState {
  constructor() {
    this.run = h("span");
    this.notes = h("span"); // what was left out of the run, or ignored in it
    this.disk = h("span", { class: "warning disk" });
    this.lost = h("span", { class: "warning" }); // the connection
    this.unkept = h("span", { class: "warning" });
    this.element = h("span", { class: "state", role: "status" }, this.lost, this.unkept, this.run, this.disk, this.notes);
  }

  /** What a frame of the run says besides its text. */
  take(frame) {
    if (frame.state !== undefined) this.run.textContent = frame.state;
    if (frame.notes) this.notes.replaceChildren(...frame.notes.map((text) => h("span", { text })));
    if (frame.at_risk !== undefined) this.disk.textContent = frame.at_risk;
  }

  forgetRun() {
    this.run.textContent = "";
    this.notes.replaceChildren();
  }

  get isLost() {
    return Boolean(this.lost.textContent);
  }

  /** Say that the connection is lost, or that it is back (""). */
  sayLost(text) {
    if (this.lost.textContent !== text) this.lost.textContent = text;
  }

  sayKept(isKept) {
    this.unkept.textContent = isKept ? "" : "This browser has no room to keep these words until they are saved.";
  }

  /** Say why what the last run wrote is not on disk, and ask until it is, or until another reason is watched. */
  watchSaving(document, reason) {
    clearTimeout(this.timer);
    this.disk.textContent = reason;
    if (!reason) return;
    const timer = this.timer = setTimeout(async () => {
      try {
        reason = (await get("notebook/unsaved", { document })).reason;
      } catch (error) {
        console.warn(error); // the line stays, and it is asked again
      }
      if (this.timer === timer) this.watchSaving(document, reason);
    }, SAVING_PAUSE);
  }

  /** A run begins, and says itself what is at risk. */
  endWatching() {
    clearTimeout(this.timer);
    this.timer = 0;
  }
}
