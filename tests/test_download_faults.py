"""Every fault of the network ends in the right bytes or in a sentence, and what is not the hub's file is never a model."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from modules.models import hub_parts
from tests import hub_stand_in as faults
from tests.download_play import CHOICE, FILE, HALF, REPO, SIZE, Play, play, stand_in
from tests.hub_stand_in import Act, StandIn, folder_files

__all__ = ["play", "stand_in"]  # fixtures
pytestmark = pytest.mark.asyncio


SURVIVED: list[tuple[str, list[Act], list[str]]] = [
    ("a dropped connection", [faults.drop_after(HALF)], [f"bytes={HALF}-"]),
    ("several, one of them at once", [faults.drop_after(1000), faults.drop_after(0), faults.drop_after(HALF)],
     ["bytes=1000-", "bytes=1000-", f"bytes={1000 + HALF}-"]),
    ("status 500", [faults.status(500)], [""]),
    ("an address that has run out", [faults.drop_after(HALF), faults.status(403)], [f"bytes={HALF}-", f"bytes={HALF}-"]),
    ("a server without ranges", [faults.drop_after(HALF), faults.from_the_beginning()], [f"bytes={HALF}-"]),
    ("416", [faults.drop_after(HALF), faults.status(416)], [f"bytes={HALF}-", ""]),
]


@pytest.mark.parametrize(("acts", "asked"), [case[1:] for case in SURVIVED], ids=[case[0] for case in SURVIVED])
async def test_a_fault_of_the_network_is_got_over(play: Play, stand_in: StandIn, acts: list[Act], asked: list[str]) -> None:
    stand_in.fault(FILE, *acts)
    done = await play.fetch()
    assert done.status == "done", done.what
    assert (play.models / REPO / FILE).read_bytes() == stand_in.repos[REPO].files[FILE]
    assert stand_in.fetched(FILE) == ["", *asked]
    assert done.notes and play.waits


async def test_the_hub_s_own_429_is_waited_for_as_long_as_it_asks(play: Play, stand_in: StandIn) -> None:
    stand_in.repos["maker/folder"].files = {"tokenizer.json": b"{}", **folder_files(1)}
    stand_in.fault("config.json", faults.status(429, Retry_After="17"))
    assert (await play.fetch("maker/folder", "safetensors")).status == "done"
    assert play.waits == [17.0]


async def test_what_never_comes_ends_in_a_sentence_and_is_resumed_from_where_it_was(play: Play, stand_in: StandIn) -> None:
    stand_in.fault(FILE, faults.drop_after(HALF), *[faults.status(500)] * 20)
    id_ = await play.downloads.start(REPO, CHOICE)
    failed = await play.ended(id_)
    assert (failed.status, failed.done) == ("failed", HALF) and "answered 500" in failed.what
    assert play.waits == [1, 2, 4, 8, 16, 30] and play.names() == []
    stand_in.faults.clear()
    assert (await play.resume(id_)).status == "done"
    assert stand_in.fetched(FILE)[-1] == f"bytes={HALF}-"


async def test_a_server_that_always_drops_and_knows_no_ranges_is_given_up(play: Play, stand_in: StandIn) -> None:
    def act(handler: faults.Handler, content: bytes, start: int) -> bool:
        return faults.drop_after(HALF)(handler, content, 0)

    stand_in.fault(FILE, *[act] * 50)
    assert (await play.fetch()).status == "failed"
    assert len(stand_in.fetched(FILE)) <= 2 * hub_parts.TRIES


async def test_a_file_that_changed_between_two_connections_begins_again_and_says_so(play: Play, stand_in: StandIn) -> None:
    """The CDN has other bytes under a new ETag; If-Range makes it send the whole file."""
    right = stand_in.repos[REPO].files[FILE]
    old = bytes(SIZE)

    def first_half_of_an_older_file(handler: faults.Handler, content: bytes, start: int) -> bool:
        return faults.drop_after(HALF)(handler, old, start)

    stand_in.fault(FILE, first_half_of_an_older_file)
    done = await play.fetch()
    assert done.status == "done" and (play.models / REPO / FILE).read_bytes() == right
    assert any("from its beginning: it has changed on the hub" in note for note in done.notes)
    again = [seen for seen in stand_in.seen if seen.server == "cdn"][1]
    assert again.headers["if-range"] == f'"{hashlib.md5(old + FILE.encode()).hexdigest()}"'


async def test_a_changed_etag_is_seen_although_the_server_ignores_if_range(play: Play, stand_in: StandIn) -> None:
    def stubborn(handler: faults.Handler, content: bytes, start: int) -> bool:
        handler.send(206, content[HALF:], handler.about_piece(FILE, content, HALF))
        return True

    stand_in.fault(FILE, lambda handler, content, start: faults.drop_after(HALF)(handler, bytes(SIZE), start), stubborn)
    assert (await play.fetch()).status == "done"
    assert stand_in.fetched(FILE) == ["", f"bytes={HALF}-", ""]


async def test_a_file_that_is_another_one_on_the_hub_now_is_not_fetched(play: Play, stand_in: StandIn) -> None:
    stand_in.etags[FILE] = "c" * 64
    failed = await play.fetch()
    assert failed.status == "failed" and "has changed on the hub since its list was read" in failed.what
    assert play.names() == []


REFUSED: list[tuple[str, Act, str]] = [
    ("a flipped byte", faults.other_content(lambda content: content[:-1] + bytes([content[-1] ^ 1])), "SHA-256"),
    ("a shorter file", faults.other_content(lambda content: content[:-100]), "3,000,000 bytes, its server has 2,999,900"),
    ("a longer file", faults.other_content(lambda content: content + bytes(100)), "its server has 3,000,100"),
]


@pytest.mark.parametrize(("act", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
async def test_what_is_not_the_hub_s_file_is_refused_and_fetched_anew_on_resume(play: Play, stand_in: StandIn, act: Act,
                                                                                words: str) -> None:
    stand_in.fault(FILE, act)
    id_ = await play.downloads.start(REPO, CHOICE)
    failed = await play.ended(id_)
    assert failed.status == "failed" and words in failed.what and failed.done == 0
    assert play.names() == [] and not [name for name in play.left() if FILE in name and not name.endswith((".part", ".json"))]
    assert (await play.resume(id_)).status == "done"


async def test_a_byte_flipped_on_the_disk_between_two_starts_is_found(play: Play, stand_in: StandIn) -> None:
    """After a resume the part is hashed again, so damage to it does not pass."""
    stand_in.fault(FILE, faults.drop_after(HALF), *[faults.status(500)] * 20)
    id_ = await play.downloads.start(REPO, CHOICE)
    await play.ended(id_)
    stand_in.faults.clear()
    part = next(play.models.rglob("*.part"))
    with part.open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))
    failed = await play.resume(id_)
    assert failed.status == "failed" and "SHA-256" in failed.what and not part.exists()
    assert (await play.resume(id_)).status == "done"


async def test_a_small_file_is_checked_by_git_s_hash(play: Play, stand_in: StandIn) -> None:
    stand_in.fault("config.json", faults.other_content(lambda content: content.replace(b"64", b"65")))
    failed = await play.fetch("maker/folder", "safetensors")
    assert failed.status == "failed" and "config.json was refused and deleted" in failed.what


async def test_what_is_no_model_although_every_byte_is_right_is_refused_and_deleted(play: Play, stand_in: StandIn) -> None:
    stand_in.repos[REPO].files[FILE] = b"GGUF but nothing that follows from it" * 100
    failed = await play.fetch()
    assert failed.status == "failed" and "although it is what the hub has" in failed.what
    assert play.left() == [] and play.names() == []


async def test_a_trickle_counts_as_no_connection_and_what_it_brought_is_kept(play: Play, stand_in: StandIn,
                                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_parts, "STALL_SECONDS", 0.5)
    stand_in.fault(FILE, faults.trickle(10, 0.02, first=HALF))
    done = await play.fetch()
    assert done.status == "done" and any("hardly anything" in note for note in done.notes)
    first, second = stand_in.fetched(FILE)
    assert first == "" and HALF < int(second.removeprefix("bytes=").rstrip("-")) < SIZE


def holding(folder: Path, text: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


async def test_a_gated_model_needs_its_token_which_the_cdn_never_gets(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.repos[REPO].is_gated = True
    for token, words in (("", "terms to be accepted first"), ("hf_wrongwrong", "may not fetch this model")):
        play = Play(stand_in.url, tmp_path / "refused", token)
        failed = await play.fetch()
        assert failed.status == "failed" and words in failed.what
        assert not token or token not in str(play.downloads.list()) + str(play.jobs.list())
        await play.close()
    play = Play(stand_in.url, tmp_path / "models", stand_in.token)
    stand_in.fault(FILE, faults.drop_after(HALF))
    assert (await play.fetch()).status == "done"
    assert stand_in.token not in str(play.downloads.list()) + str(play.jobs.list())
    await play.close()
    assert not any("authorization" in seen.headers for seen in stand_in.seen if seen.server == "cdn")
    assert not holding(tmp_path, stand_in.token)
