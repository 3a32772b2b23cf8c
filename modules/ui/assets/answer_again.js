// Another version of a reply, by another model: who could write it, what each would read, and the load of one that is not loaded.

import { get, post } from "./api.js";
import { openDialog } from "./dialog.js";
import { count, h, textButton } from "./dom.js";
import { announce, attempt } from "./notices.js";

/** Ask who shall write another version of the message, and let them. */
export async function answerAgain(conversation, view) {
  const node = view.facts.id;
  await attempt(async () => {
    const { written, models } = await get("answerers", { node });
    new Choice(conversation, node, written, models);
  });
}

class Choice {
  constructor(conversation, node, written, models) {
    this.conversation = conversation;
    this.node = node;
    this.isLoading = false;
    this.place = h("div", { class: "answerers" });
    this.dialog = openDialog(h("h2", { text: "Answer again with …" }), h("p", { class: "soft", text: byWhom(written) }), this.place);
    this.dialog.addEventListener("close", () => {
      document.removeEventListener("modelload", this.takeLoad);
      if (this.isLoading) attempt(() => post("cancel-load"));
    });
    this.takeLoad = (event) => this.showLoad(event.detail);
    document.addEventListener("modelload", this.takeLoad);
    const rows = models.map((model) => this.row(model));
    this.place.append(rows.length ? h("ul", {}, ...rows) : h("p", { text: "There is no other model. Get one in the Model tab." }));
  }

  row(model) {
    const lines = [h("span", { class: "name", text: model.name, dir: "auto" }), h("span", { class: "soft", text: reading(model) }),
      h("span", { class: "soft", text: model.words })];
    return h("li", {}, h("button", { type: "button", class: "answerer", disabled: Boolean(model.problem),
      onclick: () => this.take(model) }, ...lines));
  }

  async take(model) {
    if (model.is_loaded) this.dialog.close();
    else this.load(model.name);
    await this.conversation.turn("regenerate", { node: this.node, model: model.name });
    this.isLoading = false;
    this.dialog.close();
  }

  load(name) {
    this.isLoading = true;
    this.bar = h("progress", { max: 1, value: 0, "aria-label": "Progress of the load" });
    this.doing = h("p", { class: "soft", text: "Starting…" });
    const cancel = textButton("Cancel", () => this.dialog.close());
    this.place.replaceChildren(h("p", { text: `${name} is being loaded; then it answers.`, dir: "auto" }), this.bar, this.doing, cancel);
    announce(`${name} is being loaded.`);
    cancel.focus();
  }

  showLoad(load) {
    if (!this.isLoading || !load) return;
    this.bar.value = load.fraction;
    this.doing.textContent = load.what;
  }
}

/** "This version is by starter-Q8_0: llama_cpp, Q8_0, seed 12." */
function byWhom(written) {
  if (!written.model) return "No model wrote this version.";
  const parts = [written.loader, written.quantization, written.preset && `preset ${written.preset}`,
    written.seed !== null && `seed ${written.seed}`].filter(Boolean);
  return `This version is by ${written.model}${parts.length ? ` (${parts.join(", ")})` : ""}.`;
}

/** What a model would read of the chat, or that it is only known once it is loaded. */
function reading(model) {
  if (model.problem) return model.problem;
  if (!model.is_loaded) return "Not loaded. It is loaded first; what fits its context is known then.";
  const about = model.is_estimate ? "≈ " : "";
  const left = model.dropped ? `${count(model.dropped, "earlier message")} left out` : "nothing left out";
  return `Loaded. Reads ${about}${model.prompt_tokens.toLocaleString()} of ${count(model.context, "token")}, ${left}.`;
}
