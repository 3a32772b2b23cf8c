// One message: who speaks, what, how the reply ended and what it cost, and the buttons for what can be done with it.

import { Blocks, decorate } from "./blocks.js";
import { count, h, iconButton, textButton } from "./dom.js";
import { focusComposer, focusNamed, focusedName, keepFocus } from "./focus.js";

const OTHER_WAY = { "Earlier version": "Later version", "Later version": "Earlier version" };

/** facts: a message as /ui-api/view gives it. actions: the conversation's, each called with the message. */
export class MessageView {
  constructor(facts, actions) {
    this.facts = facts;
    this.actions = actions;
    this.body = h("div", { class: "md", dir: "auto" });
    this.body.innerHTML = facts.html; // sanitised by the server
    decorate(this.body);
    this.reasoning = null;
    this.tool = null;
    this.state = h("div", { class: "state" });
    this.stats = h("div", { class: "stats" });
    this.writer = h("span", { class: "writer", dir: "auto" });
    this.again = h("div", { class: "again", hidden: true }); // how another model's answer to the same message comes along
    this.buttons = h("div", { class: "actions", role: "group", "aria-label": "Message actions" });
    this.element = h("article", { class: `message ${facts.role}`, "data-node": facts.id, "aria-label": facts.name },
      h("header", {}, h("span", { class: "name", text: facts.name, dir: "auto" }), " ", this.writer),
      this.body, this.state, this.again, h("footer", {}, this.buttons, this.stats));
    if (facts.reasoning) {
      this.addReasoning(facts.reasoning.seconds);
      this.reasoning.body.innerHTML = facts.reasoning.html; // sanitised by the server
      decorate(this.reasoning.body);
    }
    for (const tool of facts.tools ?? []) this.body.before(toolBlock(tool.name, tool.text));
    this.drawEnd();
    this.drawButtons();
  }

  get isLive() {
    return this.facts.status === "streaming" && Boolean(this.facts.run);
  }

  // --- The keyboard

  /** The name of the control that has it, null where it is elsewhere; an editor that is being saved counts as its button. */
  get focusedName() {
    return this.editor?.inert && document.activeElement === document.body ? "Edit" : focusedName(this.element);
  }

  /** Whether there is a control of that name to take it; at the first or last version the way back does. */
  takeFocus(name) {
    return focusNamed(this.element, name) || (name in OTHER_WAY && focusNamed(this.element, OTHER_WAY[name]));
  }

  addReasoning(seconds) {
    const title = h("summary", { text: thought(seconds) });
    const body = h("div", { class: "md", dir: "auto" });
    this.reasoning = { title, body, element: h("details", { class: "reasoning" }, title, body) };
    this.body.before(this.reasoning.element);
  }

  // --- While the reply is written

  takeFrame(frame) {
    if (frame.reasoning) {
      if (!this.reasoning) this.addReasoning(null);
      this.reasoning.blocks ??= new Blocks(this.reasoning.body);
      this.reasoning.blocks.apply(frame.reasoning);
    }
    if (frame.text) {
      this.blocks ??= new Blocks(this.body);
      this.blocks.apply(frame.text);
    }
    if (frame.tool) {
      if (!this.tool) {
        this.tool = h("div", { class: "tool md" });
        this.body.after(this.tool);
      }
      this.tool.blocks ??= new Blocks(this.tool);
      this.tool.blocks.apply(frame.tool);
    }
    if (frame.s) this.takeStatus(frame.s);
  }

  /** A status without a state brings only the counters that changed. */
  takeStatus(news) {
    const status = news.state ? news : { ...this.status, ...news };
    this.status = status;
    if (status.finish !== undefined) {
      Object.assign(this.facts, { status: status.state, finish: status.finish, stats: status, run: "" });
      if (this.reasoning) this.reasoning.title.textContent = thought(status.seconds);
      keepFocus(this.element, () => {
        this.drawEnd();
        this.drawButtons();
      });
      return;
    }
    this.element.classList.add("live");
    this.element.classList.toggle("writing", status.state === "writing");
    this.element.setAttribute("aria-busy", "true");
    if (this.reasoning) {
      this.reasoning.title.textContent = status.state === "thinking" ? `Thinking… ${status.seconds ?? 0} s` : thought(status.seconds);
    }
    this.drawWriter(status);
    this.state.replaceChildren(...this.progress(status));
    this.stats.textContent = status.tokens ? numbers(status) : "";
  }

  progress(status) {
    const notes = [...warning(status.at_risk), ...leftOut(status)];
    switch (status.state) {
      case "loading": {
        const label = `Loading ${status.model}, which was idle… `;
        return [h("label", { title: status.what }, label, h("progress", { max: 1, value: status.fraction })), ...notes];
      }
      case "queued":
        return [h("span", { text: status.position > 1 ? `Waiting: number ${status.position} in line` : "Waiting: next in line" }), ...notes];
      case "starting":
        return [h("span", { text: "Starting…" }), ...notes];
      case "prefill": {
        const share = status.total ? Math.round(100 * status.done / status.total) : 0;
        return [h("label", {}, `Reading the prompt, ${share} % `, h("progress", { max: 100, value: share })), ...notes];
      }
      default:
        return notes;
    }
  }

  setConnected(isConnected) {
    this.element.classList.toggle("offline", !isConnected);
    if (isConnected && this.status) this.takeStatus(this.status);
    if (!isConnected) this.state.replaceChildren(h("span", { class: "warning", text: "Connection lost; reconnecting…" }));
  }

  // --- After it

  drawEnd() {
    const { status, finish, stats } = this.facts;
    this.element.classList.remove("live", "writing");
    this.element.removeAttribute("aria-busy");
    this.stats.textContent = this.facts.role === "assistant" && !this.isLive ? numbers(stats) : "";
    this.drawWriter({ ...this.facts, adapters: this.facts.stats.adapters });
    if (this.isLive) return this.takeStatus({ state: "starting" });
    const lines = [];
    if (status === "failed") {
      lines.push(h("p", { class: "problem", text: stats.error || "The reply failed, and no reason is known; see the server's log." }));
      if (stats.log) lines.push(h("details", {}, h("summary", { text: "Log" }), h("pre", { text: stats.log, tabindex: "0" })));
      lines.push(textButton("Try again", () => this.actions.regenerate(this)));
    } else if (status === "interrupted" || status === "streaming") {
      lines.push(h("span", { text: "Cut off when the server stopped." }));
    } else if (status === "stopped") {
      lines.push(h("span", { text: "Stopped." }));
    } else if (finish === "length") {
      lines.push(h("span", { text: "Ended at its length limit." }));
    }
    const hasText = this.body.childElementCount > 0;
    if (lines.length && hasText) lines.push(textButton("Continue", () => this.actions.continue(this)));
    this.state.replaceChildren(...warning(stats.unsaved), ...lines, ...leftOut(stats));
  }

  /** "starter · llama.cpp · Q8_0 · pirate × 0.8 · seed 12": what wrote the reply, once that is known. */
  drawWriter({ model, loader, quantization, seed, adapters = [] }) {
    if (!model) return;
    const parts = [model, this.actions.loaderTitle(loader), quantization,
      ...adapters.map(([name, weight]) => `${name} × ${weight}`), Number.isInteger(seed) ? `seed ${seed}` : ""];
    this.writer.textContent = parts.filter(Boolean).join(" · ");
  }

  /** Show how another model's answer to the same message comes along; without an argument no more. */
  showAgain(...lines) {
    keepFocus(this.again, () => {
      this.again.replaceChildren(...lines);
      this.again.hidden = !lines.length;
    });
  }

  /** Say under the ended reply why it is not on disk; "" once it is. */
  setUnsaved(reason) {
    if (reason === (this.facts.stats.unsaved ?? "")) return;
    this.facts.stats.unsaved = reason;
    keepFocus(this.state, () => this.drawEnd());
  }

  drawButtons() {
    const { role, siblings, id } = this.facts;
    const act = this.actions;
    const buttons = [];
    if (siblings.length > 1) {
      const place = siblings.indexOf(id);
      const step = (by, name, label) => iconButton(name, label, () => act.choose(this, siblings[place + by]),
        { disabled: siblings[place + by] === undefined });
      buttons.push(h("span", { class: "swipe", role: "group", "aria-label": "Versions" }, step(-1, "left", "Earlier version"),
        h("span", { text: `${place + 1}/${siblings.length}` }), step(1, "right", "Later version")));
    }
    buttons.push(iconButton("copy", "Copy", () => act.copy(this)));
    if (!this.isLive) {
      buttons.push(iconButton("edit", "Edit", () => act.edit(this)));
      if (role === "assistant" && this.facts.parent !== null) {
        buttons.push(iconButton("redo", "Regenerate", () => act.regenerate(this)));
        buttons.push(iconButton("swap", "Answer again with another model", () => act.again(this), { "aria-haspopup": "dialog" }));
      }
      if (role === "assistant") buttons.push(iconButton("more", "Continue this reply", () => act.continue(this)));
      buttons.push(iconButton("branch", "Branch from here", () => act.branch(this)));
      buttons.push(iconButton("bin", "Delete", () => act.remove(this)));
    }
    this.buttons.replaceChildren(...buttons);
  }

  /** Put an editor in the text's place. save(text, resend) resolves to whether it worked. opener: what has the keyboard after it. */
  openEditor(text, opener, save) {
    if (this.editor) return this.editor.querySelector("textarea").focus();
    const area = h("textarea", { "aria-label": "Edit message", dir: "auto", rows: Math.min(20, text.split("\n").length + 1) });
    area.value = text;
    const close = () => {
      this.editor.remove();
      this.editor = null;
      this.body.hidden = false;
      if (opener.isConnected && opener !== document.body) opener.focus({ preventScroll: true });
      else if (!this.takeFocus("Edit")) focusComposer();
    };
    const submit = async (resend) => {
      this.editor.inert = true;
      if (await save(area.value, resend)) return;
      this.editor.inert = false;
      area.focus();
    };
    const isPerson = this.facts.role === "user";
    this.editor = h("div", { class: "editor" }, area, h("div", { class: "row" },
      isPerson ? textButton("Save and send", () => submit(true), { class: "plain primary" }) : null,
      textButton(isPerson ? "Save only" : "Save", () => submit(false)), textButton("Cancel", close)));
    this.editor.addEventListener("keydown", (event) => {
      if (event.isComposing) return; // both keys then belong to an input method
      if (event.key === "Escape") close();
      else if (event.target === area && event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit(isPerson);
      else return;
      event.stopPropagation();
      event.preventDefault();
    });
    this.body.hidden = true;
    this.body.after(this.editor);
    area.focus();
  }
}

function toolBlock(name, text) {
  return h("details", { class: "reasoning" }, h("summary", { text: `Tool: ${name}` }), h("pre", { text, tabindex: "0" }));
}

function thought(seconds) {
  return seconds ? `Thought for ${seconds} s` : "Thoughts";
}

/** "31.2 tokens/s · 210 tokens · 1,034 of 8,192 context", with ≈ where the numbers are estimates */
function numbers(stats) {
  const parts = [];
  const about = stats.is_estimate ? "≈ " : "";
  if (stats.speed) parts.push(`${about}${stats.speed} tokens/s`);
  if (stats.tokens) parts.push(about + count(stats.tokens, "token"));
  if (stats.context && stats.prompt_tokens) {
    const used = stats.prompt_tokens + (stats.tokens ?? 0);
    parts.push(`${about}${used.toLocaleString()} of ${stats.context.toLocaleString()} context`);
  }
  return parts.join(" · ");
}

function warning(text) {
  return text ? [h("p", { class: "warning", text })] : [];
}

function leftOut(stats) {
  const lines = [];
  if (stats.dropped) lines.push(h("span", { text: `The context is full: ${count(stats.dropped, "earlier message")} left out.` }));
  if (stats.left_out) {
    lines.push(h("span", { text: `The context is full: the first ${count(stats.left_out, "token")} of this reply were not read again.` }));
  }
  if (stats.ignored?.length) lines.push(h("span", { text: `This model's loader does not know: ${stats.ignored.join(", ")}.` }));
  return lines;
}
