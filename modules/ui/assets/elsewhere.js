// Tells of versions that are being written out of sight, as after a swipe, and lets one look at them or stop them.

import { h, textButton } from "./dom.js";
import { hide } from "./focus.js";
import { announce } from "./notices.js";
import { Stream } from "./stream.js";

export class Elsewhere {
  constructor(conversation) {
    this.conversation = conversation;
    this.streams = new Map(); // by run
    this.line = h("span");
    this.show = textButton("Show it", () => {
      const newest = conversation.facts.elsewhere.findLast((one) => this.streams.has(one.run));
      conversation.turn("choose", { node: newest.node });
    });
    this.stop = textButton("Stop it", () => conversation.stopRuns(Array.from(this.streams.keys())));
    this.element = h("div", { class: "elsewhere notices", hidden: true },
      h("div", { class: "notice", role: "status" }, this.line, this.show, this.stop));
    conversation.addEventListener("shown", () => this.take(conversation.facts.elsewhere.map((one) => one.run)));
  }

  take(runs) {
    for (const [run, stream] of this.streams) {
      if (runs.includes(run)) continue;
      stream.end();
      this.streams.delete(run);
    }
    for (const run of runs.filter((one) => !this.streams.has(one))) {
      this.streams.set(run, new Stream(run, { // only to hear of its end
        onFrame: (frame, ended) => ended && this.ended(run, frame.s.state),
        onConnection: () => {},
        onGone: () => this.ended(run, ""),
      }));
    }
    this.draw();
  }

  ended(run, state) {
    this.streams.delete(run);
    announce(state === "stopped" ? "The other version was stopped." : "The other version has ended.");
    this.draw();
  }

  draw() {
    const n = this.streams.size;
    hide(this.element, !n);
    if (!n) return;
    this.line.textContent = n > 1 ? `${n} other versions are being written.` : "Another version is being written.";
    this.show.textContent = n > 1 ? "Show the newest" : "Show it";
    this.stop.textContent = n > 1 ? "Stop them" : "Stop it";
  }
}
