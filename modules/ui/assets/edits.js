// Tells of what a person changes in Gradio's fields. Gradio's own event tells of typed letters, and not of a paste, Delete,
// Backspace, a composition or a slider's reset; the browser's tells of all of them, and never of what a server put there.

const watched = new Map(); // by the beginning of the fields' ids: whom to tell

/**
 * Call `typed` at each change of a field whose id begins so, and `left` when one is left or reset, with the field's id.
 * Called again for the same beginning, the latest are told.
 */
export function watch(beginning, typed, left) {
  if (!watched.size) {
    document.addEventListener("input", (event) => tell(event.target, "typed"));
    document.addEventListener("focusout", (event) => tell(event.target, "left"));
    document.addEventListener("click", (event) => {
      const button = event.target.closest?.(".reset-button");
      if (button) tell(button, "reset");
    });
  }
  watched.set(beginning, { typed, left, reset: left });
}

function tell(element, how) {
  for (const [beginning, told] of watched) {
    const field = element.closest?.(`[id^="${beginning}"]`);
    // Gradio has taken the value when the event is over.
    if (field) setTimeout(() => told[how]({ field: field.id, how }), 0);
  }
}
