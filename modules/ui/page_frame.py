"""What every tab is built into: the services, the session's id, the shared panel, and what fills the page on load."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from .page_services import PageServices
from .panel import Panel
from .static_files import import_of

# The id is there once the script has claimed it for this tab.
SESSION_JS = f"async () => (await {import_of('session.js')}).session()"

Fill = tuple[list[Any], Callable[[str], Awaitable[list[Any]]]]


@dataclass
class Page:
    """Handed to each tab while the page is built, on one thread; not changed afterwards.

    session: the hidden text box that carries the tab's session id into handlers. fills: (outputs, function of the session id)
    run when a page has loaded, because Gradio bakes the values it was built with into every page. follows: the same, run when
    other models are held or a load begins or ends: they set no value that a person may be changing. progress: those of them that
    show how far a load is. lists: run when a model has come into the model folders while the page is open.
    """

    services: PageServices
    session: Any
    panel: Panel
    fills: list[Fill] = field(default_factory=list)
    follows: list[Fill] = field(default_factory=list)
    progress: list[Fill] = field(default_factory=list)
    lists: list[Fill] = field(default_factory=list)


class Tab(Protocol):
    """A tab's file has a TITLE and one of these: `build` makes the controls, `wire` connects them once all tabs are built."""

    def build(self) -> None: ...

    def build_side(self) -> None:
        """Controls for the panel at the side, above the parameters; most tabs have none."""

    @property
    def outputs(self) -> list[Any]:
        """What `state` fills when a page has loaded."""

    async def state(self, session: str) -> list[Any]: ...

    def wire(self) -> None: ...
