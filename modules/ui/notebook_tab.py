"""The Notebook tab: free text that the model continues. The page is our own component; see assets/notebook.js."""

from __future__ import annotations

from typing import Any

from .page_frame import Page
from .scripted import notebook_view


class NotebookTab:
    """One component; parameters come from the panel that the chat uses too."""

    TITLE = "Notebook"

    def __init__(self, page: Page) -> None:
        self._page = page
        self._view: Any = None

    def build(self) -> None:
        self._view = notebook_view(elem_id="notebook")

    def build_side(self) -> None:
        """Nothing of its own."""

    @property
    def outputs(self) -> list[Any]:
        return []

    async def state(self, session: str) -> list[Any]:
        return []

    def wire(self) -> None:
        """The script talks to its own routes; nothing goes through Gradio's events."""
