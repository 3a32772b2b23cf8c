"""The page: a header, the tabs in order, the parameter panel at the side; everything is built first and wired afterwards."""

from __future__ import annotations

import os
from typing import Any

# Gradio reads this when imported: without it the page calls its makers' hosts.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr

from ..core.errors import AppError
from . import chat_tab, convert_tab, download_tab, model_tab, notebook_tab
from .again_routes import again_routes
from .model_routes import model_routes
from .page_frame import SESSION_JS, Fill, Page, Tab
from .page_services import PageServices
from .panel import Panel
from .scripted import chat_list_view, model_watch
from .static_files import assets
from .theme import HEAD, THEME

# Names the handles of the sidebars. On a wide screen the list of chats is open from the start; on a phone it would hide the chat.
SIDEBARS_JS = """() => {
  const toggle = document.querySelector("#chats .toggle-button");
  for (const [id, name] of [["chats", "List of chats"], ["parameters", "Character and parameters"]]) {
    const handle = document.querySelector(`#${id} .toggle-button`);  // Gradio gives both the same name
    if (handle) { handle.title = name; handle.setAttribute("aria-label", name); }
  }
  if (toggle && innerWidth >= 900 && !document.querySelector("#chats.open, #chats .open")) toggle.click();
}"""
TABS: tuple[Any, ...] = (chat_tab.ChatTab, notebook_tab.NotebookTab, model_tab.ModelTab, download_tab.DownloadTab,
                         convert_tab.ConvertTab)


def make_page(services: PageServices) -> gr.Blocks:
    """The page, ready to mount. Values of one session never enter it: they come when the page has loaded."""
    with gr.Blocks(title="Colloquy", analytics_enabled=False, fill_height=True, fill_width=True) as blocks:
        session = gr.Textbox(visible=False, elem_id="session-id")
        panel = Panel(services)
        page = Page(services, session, panel)
        with gr.Sidebar(position="left", open=False, width=280, label="Chats", elem_id="chats"):
            chat_list_view(elem_id="chat-list")
        gr.Markdown("# Colloquy", elem_id="app-title")
        tabs: list[Tab] = []
        with gr.Tabs(elem_id="tabs"):
            for kind in TABS:
                with gr.Tab(kind.TITLE, id=kind.TITLE.lower(), elem_id=f"tab-{kind.TITLE.lower()}"):
                    tab: Tab = kind(page)
                    tab.build()
                    tabs.append(tab)
        with gr.Sidebar(position="right", open=False, width=360, label="Parameters", elem_id="parameters"):
            for tab in tabs:
                tab.build_side()
            panel.build()
        page.fills.append((panel.outputs, panel.state))
        page.follows.append((panel.model_outputs, panel.model_state))
        watch = model_watch()
        for tab in tabs:
            tab.wire()
            if tab.outputs:
                page.fills.append((tab.outputs, tab.state))
        panel.wire(session)
        _fill_on_load(blocks, page)
        _follow_models(page, watch)
        blocks.load(None, None, None, js=SIDEBARS_JS)
    # A page has many independent small events; the model has its own queue.
    blocks.queue(default_concurrency_limit=None)
    return blocks


def mount(app: Any, services: PageServices, *, root_path: str = "") -> Any:
    """Mount the page at "/" of an app whose own routes come first."""
    blocks = make_page(services)
    app.router.routes[:0] = [*model_routes(services.engine), *again_routes(services.chat)]
    css = assets()["page.css"].decode()
    return gr.mount_gradio_app(app, blocks, path="/", theme=THEME, head=HEAD, css=css, footer_links=[], run_history=False,
                               root_path=root_path or None, show_error=True, max_file_size="64mb", enable_monitoring=False,
                               mcp_server=False, ssr_mode=False, pwa=False)


def _fill_on_load(blocks: gr.Blocks, page: Page) -> None:
    """One event on load fetches the session's id in the browser and fills every tab's outputs."""

    async def fill(session: str) -> list[Any]:
        return [session, *await _values(page.fills, session)]

    filled = blocks.load(fill, [page.session], [page.session, *_outputs(page.fills)], js=SESSION_JS, show_progress="hidden",
                         api_visibility="private")
    filled.then(None, None, None, js="() => { window.pageFilled = true; }")  # tests wait for it


def _follow_models(page: Page, watch: gr.HTML) -> None:
    """Whoever loads or unloads a model, every open page follows."""
    quiet = {"js": SESSION_JS, "show_progress": "hidden", "trigger_mode": "always_last", "api_visibility": "private"}

    async def changed(session: str) -> list[Any]:
        return await _values(page.follows, session)

    async def progress(session: str) -> list[Any]:
        return await _values(page.progress, session)

    watch.changed(changed, [page.session], _outputs(page.follows), **quiet)
    watch.progress(progress, [page.session], _outputs(page.progress), **quiet)


def _outputs(fills: list[Fill]) -> list[Any]:
    return [output for outputs, _ in fills for output in outputs]


async def _values(fills: list[Fill], session: str) -> list[Any]:
    try:
        return [value for _, make in fills for value in await make(session)]
    except AppError as error:
        raise gr.Error(error.message) from error
