"""How the page looks: Gradio's default theme on the system's own fonts, and what stands in the page's head."""

from __future__ import annotations

import gradio as gr

from .static_files import import_of

# The fonts that come with Gradio are subsets without Latin letters in some weights, so bold text would change its face.
THEME = gr.themes.Default(
    primary_hue="indigo", neutral_hue="slate",
    font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Liberation Sans", "sans-serif"],
    font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace"],
).set(
    # Each a step darker than Gradio's own, which have 2.5 to 4.5 to 1 on their backgrounds; readers need 4.5 (WCAG AA).
    color_accent="*primary_600", body_text_color_subdued="*neutral_500",
    input_placeholder_color="*neutral_500", input_placeholder_color_dark="*neutral_400",
    button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700",
    button_primary_border_color="*primary_600", button_primary_border_color_hover="*primary_700",
    button_cancel_background_fill="#b91c1c", button_cancel_background_fill_hover="#991b1b")

# The tab's session is claimed while the rest of the page is still on its way.
HEAD = f"""
<script type="module">{import_of("session.js")};</script>
<meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover">
"""
