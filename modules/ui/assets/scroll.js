// Keeps the newest text in sight for a reader who is at the end, and leaves alone one who has scrolled up.

import { icon, h } from "./dom.js";
import { hide } from "./focus.js";

const AT_END = 4; // pixels
const NEAR_TOP = 600;

export class Scroll {
  /** onTop() is called when the reader comes near the oldest message shown. */
  constructor(scroller, onTop) {
    this.scroller = scroller;
    this.onTop = onTop;
    this.isFollowing = true;
    this.last = 0;
    this.jump = h("button", { type: "button", class: "jump", hidden: true, onclick: () => this.toEnd() },
      icon("down"), h("span", { text: "Newest" }));
    scroller.addEventListener("scroll", () => {
      const { scrollTop, scrollHeight, clientHeight } = scroller;
      const distance = scrollHeight - scrollTop - clientHeight;
      if (distance <= AT_END) this.follow(true);
      else if (scrollTop < this.last - 1) this.follow(false);
      this.last = scrollTop;
      this.look();
    }, { passive: true });
    // At once, before the scrolling itself: text that arrives in between must not pull the reader back.
    scroller.addEventListener("wheel", (event) => event.deltaY < 0 && this.canScrollUp() && this.follow(false), { passive: true });
    scroller.addEventListener("keydown", (event) => ["PageUp", "Home", "ArrowUp"].includes(event.key)
      && event.target === scroller && this.canScrollUp() && this.follow(false));
    new ResizeObserver(() => this.afterChange()).observe(scroller);
  }

  look() {
    if (!this.isFollowing && this.scroller.scrollTop < NEAR_TOP) this.onTop();
  }

  canScrollUp() {
    return this.scroller.scrollTop > 0;
  }

  follow(isFollowing) {
    this.isFollowing = isFollowing;
    hide(this.jump, isFollowing, () => this.scroller.focus({ preventScroll: true }));
  }

  /** To be called after the messages changed. */
  afterChange() {
    if (!this.isFollowing) return;
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.last = this.scroller.scrollTop;
  }

  toEnd() {
    this.follow(true);
    this.afterChange();
  }

  /** Change what stands above `anchor` without moving it on the screen. */
  keep(anchor, change) {
    const before = anchor.getBoundingClientRect().top;
    change();
    this.scroller.scrollTop += anchor.getBoundingClientRect().top - before;
    this.last = this.scroller.scrollTop;
  }
}
