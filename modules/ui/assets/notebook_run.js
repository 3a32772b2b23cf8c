// Follows what a run adds to a page over a WebSocket; after a lost connection it goes on from the event reached.

import { socketAddress } from "./api.js";

const RUN_UNKNOWN = 4404;
const KEY_NEEDED = 4401;
const RETRY = 1000; // milliseconds

export class PageRun {
  /** onFrame(frame); onConnection(isConnected) when it changes; onGone() when the server no longer knows the run. */
  constructor(run, { onFrame, onConnection, onGone }) {
    Object.assign(this, { run, onFrame, onConnection, onGone });
    this.offset = 0;
    this.isLost = false;
    this.connect();
  }

  connect() {
    const address = socketAddress(this.run, "", 0);
    address.pathname = address.pathname.replace("/ui-api/runs/", "/ui-api/notebook/runs/");
    address.searchParams.set("offset", this.offset);
    this.socket = new WebSocket(address);
    this.socket.onmessage = (message) => this.take(JSON.parse(message.data));
    this.socket.onclose = (event) => this.closed(event.code);
  }

  take(frame) {
    if (this.isLost) this.onConnection(true);
    this.isLost = false;
    this.offset = frame.offset;
    if (frame.saved) this.leave();
    this.onFrame(frame);
  }

  closed(code) {
    if (this.isOver) return;
    if (code === KEY_NEEDED) return location.reload(); // the guard then asks for the key
    if (code === RUN_UNKNOWN) {
      this.leave();
      return this.onGone();
    }
    this.isLost = true;
    this.onConnection(false);
    this.timer = setTimeout(() => this.connect(), RETRY);
  }

  /** The run goes on. */
  leave() {
    this.isOver = true;
    clearTimeout(this.timer);
    this.socket.close();
  }
}
