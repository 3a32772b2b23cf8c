"""The Download tab: search a hub, see what fits this machine, fetch it, and follow, pause, resume or cancel what is fetched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import gradio as gr

from ..core.errors import AppError
from ..downloads import DownloadState
from ..models import hub_files, memory, recommended
from ..models.explain import size_words
from ..models.hub_files import Listing
from ..models.hub_search import Card, Hit, search
from .page_frame import Page

KINDS = {"GGUF": "gguf", "safetensors": "safetensors", "all": "any"}
ORDERS = {"Most downloads": "downloads", "Most likes": "likes", "Newest": "newest"}
HITS = ("Repository", "Downloads", "Likes", "Updated", "Licence", "Holds")
HIT_WIDTHS = ("330px", "110px", "80px", "110px", "130px", "160px")
ADVICE = ("Repository", "About", "Quantization", "Size (about)", "Licence", "Here")
ADVICE_WIDTHS = ("350px", "340px", "120px", "130px", "110px", "230px")
SLOTS = 6               # downloads that are shown; the rest is counted
NOTHING = "Nothing has been downloaded yet."
FILES_SHOWN = 12        # of one download
MODEL_TAB = """() => {
  const menu = [...document.querySelectorAll('#tabs .overflow-dropdown button')];
  const inMenu = menu.find((button) => button.innerText.trim() === 'Model');
  (document.querySelector('#tab-model-button') ?? inMenu)?.click();
}"""
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}


class _Slot:
    """The controls of one download on the list. `id` holds which one it shows, so that a click means what was seen."""

    def __init__(self, number: int) -> None:
        with gr.Group(visible=False) as self.group:
            self.id = gr.Textbox(visible=False)
            self.text = gr.Textbox(show_label=True, interactive=False, lines=2, max_lines=8, elem_id=f"download-{number}")
            self.bar = gr.HTML("", elem_id=f"download-bar-{number}")
            with gr.Row():
                self.pause = gr.Button("Pause", size="sm", min_width=80, elem_id=f"download-pause-{number}")
                self.resume = gr.Button("Resume", size="sm", min_width=80, elem_id=f"download-resume-{number}")
                self.cancel = gr.Button("Cancel", size="sm", min_width=80, elem_id=f"download-cancel-{number}")

    @property
    def outputs(self) -> list[Any]:
        return [self.group, self.id, self.text, self.bar, self.pause, self.resume, self.cancel]


class DownloadTab:
    """Built first, wired after all tabs are built. What comes from a hub goes into text boxes, table cells and labels only."""

    TITLE = "Download"

    def __init__(self, page: Page) -> None:
        self._page = page
        self._downloads = page.services.downloads

    def build(self) -> None:
        self._state_line = gr.Textbox(show_label=False, interactive=False, visible=False, lines=1, max_lines=4,
                                      elem_id="hub-state")
        with gr.Row(elem_id="hub-search-row"):
            self._query = gr.Textbox(label="Search", placeholder="a model's name, or owner/name", scale=4, min_width=220,
                                     elem_id="hub-query", max_length=200)
            self._kind = gr.Dropdown(list(KINDS), value="GGUF", label="Format", interactive=True, scale=1, min_width=130)
            self._order = gr.Dropdown(list(ORDERS), value="Most downloads", label="Sort", interactive=True, scale=1,
                                      min_width=190)
            self._search = gr.Button("Search", variant="primary", scale=1, min_width=100, elem_id="hub-search")
        self._advice = gr.Dataframe(headers=list(ADVICE), datatype="str", interactive=False, value=[], max_height=260,
                                    label="To begin with", column_widths=list(ADVICE_WIDTHS), elem_id="hub-advice")
        self._hits = gr.Dataframe(headers=list(HITS), datatype="str", interactive=False, value=[], max_height=320, visible=False,
                                  label="Found", column_widths=list(HIT_WIDTHS), elem_id="hub-hits")
        self._told = gr.Textbox(show_label=False, interactive=False, visible=False, lines=1, max_lines=4, elem_id="hub-told")
        with gr.Row():
            self._repo = gr.Dropdown(label="Repository", choices=[], value=None, interactive=True, allow_custom_value=True,
                                     scale=4, min_width=220, elem_id="hub-repo")
            self._open = gr.Button("Show its files", size="sm", scale=1, min_width=120, elem_id="hub-open")
        with gr.Group(visible=False) as self._about:
            self._facts = gr.Textbox(label="About", interactive=False, lines=2, max_lines=8, elem_id="hub-facts")
            with gr.Accordion("What its makers write", open=False):
                self._readme = gr.Textbox(show_label=False, interactive=False, lines=8, max_lines=20, elem_id="hub-readme")
            self._choice = gr.Radio(label="Which one", choices=[], interactive=True, elem_id="hub-choice")
            self._notes = gr.Textbox(show_label=False, interactive=False, visible=False, lines=1, max_lines=6)
            self._download = gr.Button("Download", variant="primary", elem_id="hub-download")
        self._none = gr.Textbox(NOTHING, label="Downloads", interactive=False, lines=1,
                                elem_id="downloads-none")
        self._slots = [_Slot(number) for number in range(SLOTS)]
        self._to_models = gr.Button("Go to the Model tab", size="sm", visible=False, elem_id="download-to-models")
        with gr.Accordion("Token for gated models", open=False):
            self._token_state = gr.Textbox(show_label=False, interactive=False, lines=1, max_lines=3, elem_id="hub-token-state")
            with gr.Row():
                self._token = gr.Textbox(label="Token", type="password", max_length=512, scale=4, min_width=200,
                                         elem_id="hub-token")
                self._save_token = gr.Button("Save", size="sm", scale=1, min_width=80, elem_id="hub-token-save")
                self._forget_token = gr.Button("Forget", size="sm", scale=1, min_width=80, elem_id="hub-token-forget")

    def build_side(self) -> None:
        """Not a control: its value changes with each download that ends, and with it the list of models on this page."""
        self._finished = gr.Textbox("0", visible="hidden", elem_id="downloads-finished")

    @property
    def outputs(self) -> list[Any]:
        """What `state` fills, in order."""
        return [self._state_line, self._advice, self._token_state, *self._shows]

    async def state(self, _: str = "") -> list[Any]:
        line = self._line()
        return [gr.update(visible=bool(line), value=line), [_advice_row(one, room) for room in [await _room()]
                                                            for one in recommended.best_first(room)],
                await self._token_words(), *await self._now()]

    def wire(self) -> None:
        found = [self._advice, self._hits, self._told, self._repo]
        about = [self._about, self._facts, self._readme, self._choice, self._notes, self._told]
        asked = [self._query, self._kind, self._order]
        for event in (self._search.click, self._query.submit):
            event(self._find, asked, found, **QUIET)
        for table in (self._hits, self._advice):
            table.select(_pick, None, [self._repo], **QUIET).then(self._look, [self._repo], about, **QUIET)
        self._open.click(self._look, [self._repo], about, **QUIET)
        self._repo.input(self._look, [self._repo], about, **QUIET)
        self._download.click(self._start, [self._repo, self._choice], self._shows, **QUIET)
        for slot in self._slots:
            for button, act in ((slot.pause, self._downloads.pause), (slot.resume, self._downloads.resume),
                                (slot.cancel, self._downloads.cancel)):
                button.click(partial(self._act, act), [slot.id], self._shows, **QUIET)
        self._to_models.click(None, None, None, js=MODEL_TAB)
        self._save_token.click(self._keep_token, [self._token], [self._token, self._token_state, self._state_line], **QUIET)
        self._forget_token.click(self._drop_token, None, [self._token, self._token_state, self._state_line], **QUIET)
        self._page.follows.append((self._shows, self._now))
        self._page.progress.append((self._shows, self._now))
        outputs = [output for filled, _ in self._page.lists for output in filled]
        self._finished.change(self._models, None, outputs, **QUIET)

    # Looking for a model

    async def _find(self, text: str, kind: str, order: str) -> list[Any]:
        """The hits as a table and as choices. What looks like owner/name or an address is offered as it stands."""
        try:
            hits = await search(self._downloads.hub, text or "", KINDS[kind], ORDERS[order])  # type: ignore[arg-type]
        except AppError as error:
            return [gr.skip(), gr.update(visible=False), gr.update(visible=True, value=error.message), gr.skip()]
        names = [hit.repo for hit in hits]
        none = f"Nothing was found for {text!r} as {kind}; try fewer words, or all formats." if not hits else ""
        if "/" in (text or "").strip():
            names = list(dict.fromkeys([text.strip()[:300], *names]))
        return [gr.update(visible=not hits), gr.update(visible=bool(hits), value=[_hit_row(hit) for hit in hits]),
                gr.update(visible=bool(none), value=none), gr.update(choices=names, value=names[0] if names else None)]

    async def _look(self, repo: str | None) -> list[Any]:
        """The card, and its files as choices with what fits."""
        hidden = [gr.update(visible=False), *[gr.skip()] * 4]
        if not (repo or "").strip():
            return [*hidden, gr.update(visible=True, value="Choose a repository, or write its name as owner/name.")]
        try:
            card, listing = await self._downloads.look(repo or "")
        except AppError as error:
            return [*hidden, gr.update(visible=True, value=error.message)]
        room = await _room()
        chosen = hub_files.suggested(listing, card, room)
        labels = [(hub_files.words(choice, card, room), choice.name) for choice in listing.choices]
        notes = "\n".join(listing.notes)
        return [gr.update(visible=True), _facts(card, listing, room), card.text or "They wrote nothing.",
                gr.update(choices=labels, value=chosen.name if chosen else None), gr.update(visible=bool(notes), value=notes),
                gr.update(visible=False)]

    # Downloads

    @property
    def _shows(self) -> list[Any]:
        """What `_now` fills, in order."""
        return [self._none, self._to_models, self._finished, *(output for slot in self._slots for output in slot.outputs)]

    async def _now(self, _: str = "") -> list[Any]:
        """Every download as it stands."""
        states = self._downloads.list()
        more = len(states) - SLOTS
        line = f"{more} more are on the list; they are shown when others have ended." if more > 0 else NOTHING
        done = any(state.status == "done" for state in states)
        slots = [value for number in range(SLOTS) for value in _slot_values(states[number] if number < len(states) else None)]
        head = [gr.update(visible=not states or more > 0, value=line), gr.update(visible=done), str(self._downloads.finished)]
        return [*head, *slots]

    async def _start(self, repo: str | None, choice: str | None) -> list[Any]:
        if not repo or not choice:
            raise gr.Error("Choose a repository and one of its files first.")
        return await self._act(partial(self._downloads.start, repo), choice)

    async def _act(self, act: Callable[[str], Awaitable[object]], argument: str) -> list[Any]:
        try:
            await act(argument)
        except AppError as error:
            raise gr.Error(error.message, print_exception=False) from error
        return await self._now()

    async def _models(self) -> list[Any]:
        """The list of models, read anew."""
        return [value for _, make in self._page.lists for value in await make("")]

    # The token

    async def _keep_token(self, text: str) -> list[Any]:
        """The field is emptied in any case: a token stays in no page."""
        try:
            await asyncio.to_thread(self._downloads.token.save, text or "")
        except AppError as error:
            return ["", error.message, gr.skip()]
        return ["", await self._token_words(), gr.skip()]

    async def _drop_token(self) -> list[Any]:
        try:
            await asyncio.to_thread(self._downloads.token.forget)
        except AppError as error:
            raise gr.Error(error.message, print_exception=False) from error
        return ["", await self._token_words(), gr.skip()]

    async def _token_words(self) -> str:
        hub = self._downloads.hub
        source = await asyncio.to_thread(self._downloads.token.source)
        if not source:
            return f"None is set. Models whose makers ask for terms to be accepted need one, made at {hub.url}/settings/tokens."
        if not hub.may_carry_token:
            return f"One is set ({source}), but is not sent: {hub.host} is not asked over https."
        return f"One is set: {source}. It is sent to {hub.host} alone."

    def _line(self) -> str:
        hub = self._downloads.hub
        if hub.is_offline:
            return ("Offline is set, so no hub is asked. To download, start the app without --offline and HF_HUB_OFFLINE; or "
                    f"copy GGUF files or model folders into {self._downloads.models}.")
        return "" if hub.url == "https://huggingface.co" else f"The hub is {hub.host}."


def _pick(event: gr.SelectData) -> Any:
    return gr.update(value=str(event.row_value[0]))


async def _room() -> int:
    """Bytes of memory that a model may take: of the machine or of its GPUs, whichever is more."""
    return max(await asyncio.to_thread(memory.free_ram), await asyncio.to_thread(memory.free_vram))


def _hit_row(hit: Hit) -> list[str]:
    holds = [*hit.formats, *(["gated"] if hit.is_gated else [])]
    return [hit.repo, f"{hit.downloads:,}", f"{hit.likes:,}", hit.updated, hit.licence, ", ".join(holds)]


def _advice_row(one: recommended.Recommended, room: int) -> list[str]:
    here = "fits" if one.needed_bytes <= room else f"too large: needs about {size_words(one.needed_bytes)}"
    return [one.repo, one.about, one.quantization, size_words(one.size), one.licence, here]


def _facts(card: Card, listing: Listing, room: int) -> str:
    gated = {"": "", "auto": "Gated: its terms have to be accepted on its page, then a token fetches it.",
             "manual": "Gated: its makers answer each request by hand; then a token fetches it."}[card.gated]
    lines = [card.repo, f"Licence: {card.licence or 'not said; read what its makers write'}",
             f"Made from: {', '.join(card.base_models)}" if card.base_models else "",
             f"{card.n_params / 1e9:.1f} billion parameters" if card.n_params >= 1e8 else "",
             f"{card.downloads:,} downloads a month, {card.likes:,} likes", gated,
             f"Changed {card.updated}" if card.updated else "",
             f"{len(listing.choices)} to choose from; {size_words(room)} of memory are free here."]
    return "\n".join(line for line in lines if line)


def _slot_values(state: DownloadState | None) -> list[Any]:
    if state is None:
        return [gr.update(visible=False), "", *[gr.skip()] * 5]
    percent = 100 * state.done // state.size if state.size else 100
    is_active = state.status in ("waiting", "running")
    can_resume = state.status in ("paused", "failed")
    # Numbers of ours alone: a hub's text never reaches HTML.
    bar = f'<progress class="download-bar" max="100" value="{percent}" aria-label="{percent} percent fetched"></progress>'
    return [gr.update(visible=True), state.id, gr.update(label=state.title, value=_slot_text(state, percent)),
            gr.update(visible=state.status != "done", value=bar), gr.update(visible=is_active), gr.update(visible=can_resume),
            gr.update(value="Remove from the list" if state.status == "done" else "Cancel and delete")]


def _slot_text(state: DownloadState, percent: int) -> str:
    amount = f"{size_words(state.done)} of {size_words(state.size)} ({percent} %)"
    left = (state.size - state.done) / state.speed if state.speed else 0
    pace = f", {size_words(int(state.speed))} a second, {_time_words(left)} left" if left else ""
    head = {"done": "Done", "paused": f"Paused at {amount}", "failed": f"Stopped at {amount}", "waiting": "Waiting",
            "running": f"{amount}{pace}"}[state.status]
    lines = [head, state.what]
    if state.status != "done":
        lines += [*state.notes[-1:], *_file_lines(state)]
    return "\n".join(line for line in lines if line)


def _file_lines(state: DownloadState) -> list[str]:
    """Of several files those that are still to come, the largest first."""
    missing = sorted((file for file in state.files if file.done < file.size), key=lambda file: -file.size)
    if len(state.files) == 1 or not missing:
        return []
    lines = [f"{file.name}: {size_words(file.done)} of {size_words(file.size)}" for file in missing[:FILES_SHOWN]]
    more = len(missing) - FILES_SHOWN
    return [f"{len(state.files) - len(missing)} of {len(state.files)} files are here.", *lines,
            *([f"and {more} more files"] if more > 0 else [])]


def _time_words(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
