// Builders of DOM nodes; text always goes in as text, never as HTML.

/** An element. Properties: class, text, on* listeners, true for a bare attribute, false or null for none. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// Paths of line icons in a box of 24 by 24.
const PATHS = {
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  edit: "M4 20h4L19 9l-4-4L4 16zM13.5 6.5l4 4",
  swap: "M4 8h13l-3.5-3.5M20 16H7l3.5 3.5",
  redo: "M20 11a8 8 0 1 0-2.3 6.3M20 4v7h-7",
  more: "M13 5l7 7-7 7M4 5l7 7-7 7",
  bin: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v6M14 11v6",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  down: "M12 5v14M5 12l7 7 7-7",
  below: "M6 9l6 6 6-6",
  branch: "M6 4v16M6 14c7 0 11-2 11-7M14 9l3-3 3 3",
  send: "M12 19V5M5 12l7-7 7 7",
  stop: "M7 7h10v10H7z",
  plus: "M12 5v14M5 12h14",
  close: "M6 6l12 12M18 6L6 18",
  restore: "M4 12a8 8 0 1 0 2.3-5.7M4 4v7h7",
};

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** A button with an icon and a name that is read out and shown as a tooltip. */
export function iconButton(name, label, onclick, properties = {}) {
  return h("button", { type: "button", class: "icon", title: label, "aria-label": label, onclick, ...properties }, icon(name));
}

export function textButton(label, onclick, properties = {}) {
  return h("button", { type: "button", class: "plain", text: label, onclick, ...properties });
}

/** "1 message", "3 messages", with thousands parted. */
export function count(number, noun) {
  return `${number.toLocaleString()} ${noun}${number === 1 ? "" : "s"}`;
}

/** Put a stylesheet into the page, once; resolves when it is there, or when it failed: an unstyled page still works. */
export function stylesheet(address) {
  if (document.querySelector(`link[href="${address}"]`)) return Promise.resolve();
  return new Promise((resolve) => {
    document.head.append(h("link", { rel: "stylesheet", href: address, onload: resolve, onerror: resolve }));
  });
}

/** Let an element reach from where it begins to the window's end less `--below`, whatever stands above it. */
export function fillWindow(place) {
  const fit = () => {
    const top = place.getBoundingClientRect().top + scrollY;
    if (place.offsetParent) place.style.height = `calc(100dvh - ${Math.ceil(top)}px - var(--below))`;
  };
  addEventListener("resize", fit);
  const sizes = new ResizeObserver(fit); // what stands above grew or shrank, or the tab was opened
  const watch = () => {
    for (let at = place; at.parentElement && at !== document.body; at = at.parentElement) {
      if (at !== place) sizes.observe(at);
      for (let before = at.previousElementSibling; before; before = before.previousElementSibling) sizes.observe(before);
    }
    fit();
  };
  // A line above came or went. The parents' own sizes do not always tell: some have a height that the window gives.
  const lines = new MutationObserver(watch);
  for (let at = place; at.parentElement && at !== document.body; at = at.parentElement) {
    lines.observe(at.parentElement, { childList: true });
  }
  watch();
}

/** Put text on the clipboard; off localhost without HTTPS browsers offer only the old way. */
export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = h("textarea", { class: "unseen", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const worked = document.execCommand("copy");
  area.remove();
  if (!worked) throw new Error("This browser lets no page copy here; select the text and copy it by hand.");
}
