"""What each tab has open: a new tab copies the latest, a duplicated one the tab that it was duplicated from."""

from __future__ import annotations

from pathlib import Path

import pytest

from modules.core.errors import BadRequest
from modules.sessions import Sessions
from modules.store.database import Store

from .test_chat import OTHER_TAB, TAB

NEW_TAB = "tab-00112233445566"


async def test_a_duplicate_has_what_its_tab_has_and_goes_its_own_way(tmp_path: Path) -> None:
    store = Store(tmp_path)
    sessions = Sessions(store.sessions)
    await sessions.update(TAB, conversation="mine", params={"seed": 1})
    await sessions.update(OTHER_TAB, conversation="latest")
    assert (await sessions.get("tab-9999999999")).conversation == "latest"
    copied = await sessions.copy(NEW_TAB, TAB)
    assert (copied.id, copied.conversation, copied.params) == (NEW_TAB, "mine", {"seed": 1})
    await sessions.update(NEW_TAB, conversation="other")
    assert (await sessions.get(TAB)).conversation == "mine"
    again = Sessions(store.sessions)
    assert [(await again.get(tab)).conversation for tab in (TAB, NEW_TAB)] == ["mine", "other"], "both are saved"
    with pytest.raises(BadRequest):
        await sessions.copy(NEW_TAB, "../x")
    store.close()
