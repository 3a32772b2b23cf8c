// Where the keyboard goes when what had it is drawn anew or taken away: to its like, else to the box one writes in.

const CONTROLS = "button, summary, a[href]";

/** The chat's box; on a touch screen, where that would bring up the keys, its messages. */
export function focusComposer() {
  const isTouch = matchMedia("(pointer: coarse)").matches;
  document.querySelector(isTouch ? ".colloquy .messages" : ".composer textarea")?.focus({ preventScroll: true });
}

export function hasFocus(element) {
  return element.contains(document.activeElement);
}

/** The name of the control in `element` that has the keyboard, "" for one without; null where none has. */
export function focusedName(element) {
  return hasFocus(element) ? nameOf(document.activeElement) : null;
}

/** Give the keyboard to the control of that name in `element`; whether there is one that takes it. */
export function focusNamed(element, name) {
  const control = Array.from(element.querySelectorAll(CONTROLS)).find((one) => !one.disabled && nameOf(one) === name);
  control?.focus({ preventScroll: true });
  return Boolean(control) && document.activeElement === control;
}

/** Run change(), which draws what is in `element` anew. */
export function keepFocus(element, change) {
  const name = focusedName(element);
  change();
  if (name !== null && !hasFocus(element) && !focusNamed(element, name)) focusComposer();
}

/** Hide an element that may have the keyboard, or show it. then() gives the keyboard on. */
export function hide(element, isHidden, then = focusComposer) {
  const had = isHidden && hasFocus(element);
  element.hidden = isHidden;
  if (had) then();
}

/** Take an element away that may have the keyboard. */
export function remove(element, then = focusComposer) {
  const had = hasFocus(element);
  element.remove();
  if (had) then();
}

/** Remember which of these messages has the keyboard; the returned function gives it to the one in its place, else to the last. */
export function holdFocus(views) {
  const held = views.find((view) => view.focusedName !== null);
  if (!held) return () => {};
  const name = held.focusedName;
  return (now) => {
    const place = now.find((view) => view.facts.siblings.some((id) => held.facts.siblings.includes(id))) ?? now.at(-1);
    if (!place?.takeFocus(name)) focusComposer();
  };
}

function nameOf(control) {
  return control.getAttribute("aria-label") ?? control.textContent.trim();
}
