// "Answer again with…": a dialog to choose the model, and at the reply how that model's load comes along, with Cancel.

import { get, post } from "./api.js";
import { openDialog } from "./dialog.js";
import { count, h, textButton } from "./dom.js";
import { announce, attempt } from "./notices.js";

const FILTERED_FROM = 9; // models; fewer are seen at a glance
const PAUSE = 2000; // milliseconds before the server is called again

export class AnswerAgain {
  constructor(conversation) {
    this.conversation = conversation;
    this.followed = new Map(); // by the server's id of what was asked: its socket and how it stands
    conversation.addEventListener("shown", () => this.take(conversation.facts.again ?? []));
  }

  // --- The choice

  choose(view) {
    return attempt(async () => {
      const { models } = await get("again/models");
      new Choice(view, models, this.conversation.facts.conversation, (model, quantization) => this.start(view, model, quantization));
    });
  }

  start(view, model, quantization) {
    const { conversation } = this.conversation.facts;
    return attempt(async () => {
      const { is_written } = await post("again/start", { conversation, node: view.facts.id, model, quantization });
      if (!is_written) announce(`Loading ${model}. The reply begins when it is ready.`);
      await this.conversation.load();
      if (is_written) this.conversation.scroll.toEnd();
    });
  }

  // --- How it comes along

  take(asked) {
    const ids = asked.map((one) => one.id);
    for (const [id, one] of this.followed) {
      if (ids.includes(id)) continue;
      this.followed.delete(id);
      one.socket?.close();
    }
    for (const facts of asked) {
      if (this.followed.has(facts.id)) continue;
      const one = { ...facts, fraction: 0, what: "" };
      this.followed.set(facts.id, one);
      if (!hasFailed(one)) this.follow(one);
    }
    this.draw();
  }

  follow(one) {
    const url = new URL(`../../ui-api/again/${encodeURIComponent(one.id)}`, import.meta.url);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    one.socket = new WebSocket(url);
    let isOver = false;
    one.socket.onmessage = (message) => {
      const before = one.status;
      Object.assign(one, JSON.parse(message.data));
      isOver = one.status !== "loading";
      this.draw();
      if (one.status !== before && hasFailed(one)) announce(one.message);
    };
    one.socket.onclose = (event) => {
      if (this.followed.get(one.id) !== one || hasFailed(one)) return;
      if (isOver || event.code === 4404) this.isWritten(one);
      else setTimeout(() => this.followed.get(one.id) === one && this.follow(one), PAUSE);
    };
  }

  /** The reply has begun: look at the chat, which is at it unless the person has gone on. */
  async isWritten(one) {
    this.followed.delete(one.id);
    await attempt(() => this.conversation.load());
    this.conversation.scroll.toEnd();
  }

  draw() {
    for (const view of this.conversation.views) {
      const one = Array.from(this.followed.values()).findLast((asked) => asked.under === view.facts.parent && view.facts.role === "assistant");
      if (one) view.showAgain(...this.lines(one, view));
      else view.showAgain();
    }
    this.conversation.scroll.afterChange();
  }

  lines(one, view) {
    if (!hasFailed(one)) {
      const share = Math.round(100 * one.fraction);
      return [
        h("label", {}, h("span", { dir: "auto", text: `Answering again with ${one.model}: ${one.what || "waiting"}, ${share} % ` }),
          h("progress", { max: 100, value: share })),
        one.status === "loading" ? textButton("Cancel loading", () => attempt(() => post("again/cancel", { asked: one.id }))) : null,
      ].filter(Boolean);
    }
    return [
      h("p", { class: one.status === "failed" ? "problem" : "", dir: "auto",
        text: one.status === "failed" ? `${one.model} did not answer. ${one.message}` : one.message }),
      textButton("Choose a model", () => this.choose(view)),
      textButton("Dismiss", () => this.dismiss(one)),
    ];
  }

  async dismiss(one) {
    await attempt(async () => {
      await post("again/dismiss", { asked: one.id });
      this.followed.delete(one.id);
      this.draw();
    });
  }
}

function hasFailed(one) {
  return one.status === "failed" || one.status === "cancelled";
}

/** The dialog: first the models, then what changes with the one chosen. Names of models are text of whoever named their files. */
class Choice {
  constructor(view, models, conversation, start) {
    Object.assign(this, { view, models, conversation, start });
    this.heading = h("h2", { text: "Answer again with…" });
    this.place = h("div", { class: "chats choice" });
    this.dialog = openDialog(this.heading, this.place);
    this.filter = h("input", { type: "text", placeholder: "Search models", "aria-label": "Search models", oninput: () => this.list() });
    this.rows = h("ul", { class: "rows" });
    this.none = h("p", { class: "nothing", hidden: true, text: "No model of that name." });
    this.showModels();
  }

  showModels() {
    const { model } = this.view.facts;
    this.place.replaceChildren(
      ...(model ? [h("p", { class: "nothing", text: `This reply is by ${model}. The new one becomes a version beside it.`, dir: "auto" })] : []),
      ...(this.models.length >= FILTERED_FROM ? [this.filter] : []), this.rows, this.none);
    this.list();
    (this.models.length >= FILTERED_FROM ? this.filter : this.rows.querySelector("button:enabled"))?.focus();
  }

  list() {
    const words = this.filter.value.trim().toLowerCase();
    const found = this.models.filter((model) => model.name.toLowerCase().includes(words));
    this.rows.replaceChildren(...found.map((model) => this.row(model)));
    this.none.hidden = found.length > 0;
  }

  row(model) {
    const about = [model.is_loaded ? "loaded" : "", model.loader, model.quantization, model.size_bytes ? size(model.size_bytes) : ""];
    const button = h("button", { type: "button", class: "chat", disabled: Boolean(model.problem), onclick: () => this.showChange(model) },
      h("span", { class: "title", text: model.name, dir: "auto" }),
      h("span", { class: "about", text: about.filter(Boolean).join(" · "), dir: "auto" }),
      model.problem ? h("span", { class: "snippet", text: model.problem, title: model.problem, dir: "auto" }) : null);
    return h("li", { class: model.is_loaded ? "open" : "" }, button);
  }

  async showChange(model) {
    const told = h("div", { class: "told", role: "status" });
    const go = textButton("Answer again", () => {
      this.dialog.close();
      this.start(model.name, select?.value === model.chosen ? "" : select?.value ?? "");
    }, { class: "plain primary" });
    const select = model.quantizations.length ? h("select", { onchange: () => this.tell(model, select.value, told, go) },
      ...model.quantizations.map((one) => h("option", { value: one, text: one === "none" ? "none: as in the file" : one,
        selected: one === (model.chosen || "none") }))) : null;
    const about = [model.loader, model.quantization].filter(Boolean).join(" · ");
    this.place.replaceChildren(
      h("p", { class: "chosen", dir: "auto" }, h("b", { text: model.name }), about ? ` · ${about}` : ""),
      ...(select ? [h("label", { class: "row shrink" }, "Quantization while loading", select)] : []),
      told, h("div", { class: "row" }, textButton("Back", () => this.showModels()), go));
    go.focus();
    await this.tell(model, select?.value ?? "", told, go);
  }

  /** Say what changes; the button stays off where the server says that it cannot be done. */
  async tell(model, quantization, told, go) {
    const asked = this.asked = {};
    told.replaceChildren(h("p", { text: "Counting the tokens…" }));
    let lines;
    let isPossible = true;
    try {
      const given = model.is_loaded && quantization === model.chosen ? "" : quantization;
      const forecast = await get("again/forecast", { node: this.view.facts.id, conversation: this.conversation, model: model.name, quantization: given });
      lines = changes(model, forecast, this.view.facts.stats);
    } catch (error) {
      console.warn(error);
      isPossible = false;
      lines = [error.message];
    }
    if (asked !== this.asked) return; // another was chosen meanwhile
    told.replaceChildren(...lines.map((text) => h("p", { text, dir: "auto", class: isPossible ? "" : "problem" })));
    const had = document.activeElement === go;
    go.disabled = !isPossible;
    if (had && !isPossible) go.previousElementSibling.focus();
  }
}

function changes(model, forecast, before) {
  if (!forecast.is_loaded) {
    const { makes_room: goes } = forecast;
    const lines = [model.is_loaded ? `${model.name} is loaded anew for this.` : `${model.name} is loaded for this.`];
    if (goes && goes !== model.name) {
      lines[0] += ` ${goes} makes room for it once its replies have ended, and comes back if the load fails.`;
      lines.push("The next messages are then answered by the new model.");
    }
    lines.push("How many tokens the prompt has with it, and whether messages have to be left out, is known once it is loaded: the reply then says so.");
    return lines;
  }
  const about = forecast.is_estimate ? "about " : "";
  const lines = [`The prompt: ${about}${forecast.prompt_tokens.toLocaleString()} of ${count(forecast.context, "token")} that the context holds.`];
  lines.push(forecast.dropped ? `The ${count(forecast.dropped, "oldest message")} would be left out.` : "No message has to be left out.");
  if (before.prompt_tokens && before.context) {
    const dropped = before.dropped ? `, ${count(before.dropped, "message")} left out` : "";
    lines.push(`For this reply it was ${before.prompt_tokens.toLocaleString()} of ${before.context.toLocaleString()}${dropped}.`);
  }
  lines.push("Who answers the next message does not change.");
  return lines;
}

function size(bytes) {
  return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.max(1, Math.round(bytes / 1e6))} MB`;
}
