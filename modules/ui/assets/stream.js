// Follows a run over a WebSocket; reconnects by itself and goes on from the version it has.

import { socketAddress } from "./api.js";

const RUN_UNKNOWN = 4404;
const KEY_NEEDED = 4401;
const PAUSES = [0.2, 0.5, 1, 2, 4]; // seconds before each further try

export class Stream {
  /** onFrame(frame); onConnection(isConnected) when it changes; onGone() when the server no longer knows the run. */
  constructor(run, { onFrame, onConnection, onGone }) {
    Object.assign(this, { run, onFrame, onConnection, onGone });
    this.epoch = "";
    this.version = 0;
    this.tries = 0;
    this.isOver = false;
    this.wake = () => this.timer && this.retryNow();
    addEventListener("online", this.wake);
    document.addEventListener("visibilitychange", this.wake);
    this.connect();
  }

  connect() {
    this.timer = 0;
    const socket = new WebSocket(socketAddress(this.run, this.epoch, this.version));
    this.socket = socket;
    socket.onmessage = (message) => this.take(JSON.parse(message.data));
    socket.onclose = (event) => {
      if (this.isOver || socket !== this.socket) return;
      if (event.code === RUN_UNKNOWN) return this.end(this.onGone);
      if (event.code === KEY_NEEDED) return location.reload();
      this.onConnection(false);
      const pause = PAUSES[Math.min(this.tries++, PAUSES.length - 1)];
      this.timer = setTimeout(() => this.connect(), pause * 1000);
    };
  }

  retryNow() {
    clearTimeout(this.timer);
    this.connect();
  }

  take(frame) {
    if (this.tries || !this.epoch) this.onConnection(true);
    this.tries = 0;
    if (frame.e) this.epoch = frame.e;
    this.version = frame.v;
    const ended = frame.s && frame.s.finish !== undefined;
    if (ended) this.end();
    this.onFrame(frame, ended);
  }

  /** Leave; the run goes on. */
  end(then) {
    this.isOver = true;
    clearTimeout(this.timer);
    removeEventListener("online", this.wake);
    document.removeEventListener("visibilitychange", this.wake);
    this.socket.close();
    if (then) then();
  }
}
