"""How the page looks: Gradio's default theme on the system's own fonts, our stylesheet and scripts."""

from __future__ import annotations

import gradio as gr

# The fonts that come with Gradio are subsets without Latin letters in some weights, so bold text would change its face.
THEME = gr.themes.Default(
    primary_hue="indigo", neutral_hue="slate",
    font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Liberation Sans", "sans-serif"],
    font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace"])
