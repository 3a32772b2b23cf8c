"""How the page looks: Gradio's default theme on the system's own fonts, and what stands in the page's head."""

from __future__ import annotations

import gradio as gr

# The fonts that come with Gradio are subsets without Latin letters in some weights, so bold text would change its face.
THEME = gr.themes.Default(
    primary_hue="indigo", neutral_hue="slate",
    font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Liberation Sans", "sans-serif"],
    font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace"])

# One session a browser tab, kept over reloads; assets/api.js asks the same function.
HEAD = """
<script>
window.colloquySession = () => {
  const key = "colloquy-session";
  let id = sessionStorage.getItem(key);
  if (!id) {
    id = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    sessionStorage.setItem(key, id);
  }
  return id;
};
</script>
<meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover">
"""
