"""Downloads: they arrive whole, pause, resume, outlive a kill, and nothing half is ever in the list of models."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modules.core.errors import AppError, Conflict, NotFound
from modules.models.catalog import Catalog
from modules.models.hub_plan import FOLDER, PLAN_FILE
from tests import hub_stand_in as faults
from tests.download_play import CHOICE, FILE, HALF, REPO, SIZE, Play, play, stand_in
from tests.hub_stand_in import Repo, StandIn, gguf_bytes
from tests.running_app import ROOT, clean_environment, wait_until

__all__ = ["play", "stand_in"]  # fixtures
pytestmark = pytest.mark.asyncio


async def test_a_gguf_file_arrives_whole_and_is_in_the_list(play: Play, stand_in: StandIn) -> None:
    done = await play.fetch()
    assert (done.status, done.done, done.size, done.model) == ("done", SIZE, SIZE, f"{REPO}/{CHOICE}")
    assert play.left() == [f"{REPO}/{FILE}"] and play.names() == [done.model] and play.downloads.finished == 1
    assert (play.models / REPO / FILE).read_bytes() == stand_in.repos[REPO].files[FILE]
    assert not [file.problem for file in Catalog([play.models]).list() if file.problem]
    with pytest.raises(Conflict, match="already"):
        await play.downloads.start(REPO, CHOICE)


async def test_a_safetensors_repository_arrives_as_its_folder_with_no_pickle(play: Play, stand_in: StandIn) -> None:
    done = await play.fetch("maker/folder", "safetensors")
    assert done.status == "done" and len(done.files) == 8 and all(file.done == file.size for file in done.files)
    assert play.names() == ["maker/folder"] and not [name for name in play.left() if name.endswith((".bin", ".py"))]
    assert len(play.left()) == 8 and not Catalog([play.models]).list()[0].problem
    assert not [seen for seen in stand_in.seen if ".bin" in seen.path]


async def test_a_split_gguf_arrives_as_one_model(play: Play, stand_in: StandIn, tmp_path: Path) -> None:
    parts = {f"q/big-Q8_0-{n:05d}-of-00002.gguf": gguf_bytes(tmp_path, 9000, seed=n, **{"split.count": 2}) for n in (1, 2)}
    stand_in.repos["maker/split"] = Repo(parts)
    done = await play.fetch("maker/split", "q/big-Q8_0")
    assert done.status == "done", done.what
    assert play.names() == ["maker/split/q/big-Q8_0"] and len(play.left()) == 2


async def test_a_disk_that_is_too_full_is_said_before_anything_is_fetched(play: Play, stand_in: StandIn) -> None:
    entry = faults.entry(FILE, b"")
    stand_in.repos[REPO].tree = [{**entry, "lfs": {"oid": "a" * 64, "size": 1 << 49}}]
    with pytest.raises(AppError, match=r"has [\d.,]+ GB free, and 562,950.0 GB are needed"):
        await play.downloads.start(REPO, CHOICE)
    assert not stand_in.fetched(FILE) and play.downloads.list() == [] and play.left() == []


async def test_pause_keeps_what_is_there_and_resume_asks_for_the_rest(play: Play, stand_in: StandIn) -> None:
    stand_in.fault(FILE, faults.hold_after(HALF))
    id_ = await play.downloads.start(REPO, CHOICE)
    await play.until(id_, lambda state: state.done > 0)
    assert play.names() == [] and play.state(id_).status == "running"
    with pytest.raises(Conflict):
        await play.downloads.resume(id_)
    await play.downloads.pause(id_)
    paused = play.state(id_)
    assert paused.status == "paused" and 0 < paused.done <= HALF
    assert (await play.resume(id_)).status == "done"
    assert stand_in.fetched(FILE) == ["", f"bytes={paused.done}-"]


async def test_cancel_deletes_what_was_begun_and_nothing_else(play: Play, stand_in: StandIn) -> None:
    other = play.models / REPO / "mine.txt"
    other.parent.mkdir(parents=True)
    other.write_text("mine")
    stand_in.fault(FILE, faults.hold_after(HALF))
    id_ = await play.downloads.start(REPO, CHOICE)
    await play.until(id_, lambda state: state.done > 0)
    await play.downloads.cancel(id_)
    assert play.downloads.list() == [] and play.left() == [f"{REPO}/mine.txt"]
    with pytest.raises(NotFound):
        await play.downloads.resume(id_)


async def test_a_download_that_waits_for_others_can_be_paused_before_it_began(play: Play, stand_in: StandIn,
                                                                             tmp_path: Path) -> None:
    for n in (1, 2, 3):
        stand_in.repos[f"maker/{n}"] = Repo({f"m{n}.gguf": gguf_bytes(tmp_path, SIZE, seed=n)})
        stand_in.fault(f"m{n}.gguf", faults.hold_after(HALF))
    ids = [await play.downloads.start(f"maker/{n}", f"m{n}") for n in (1, 2, 3)]
    await play.until(ids[1], lambda state: state.done > 0)
    assert play.state(ids[2]).status == "waiting" and not stand_in.fetched("m3.gguf")
    await play.downloads.pause(ids[2])
    assert play.state(ids[2]).status == "paused"
    stand_in.may_go_on.set()
    assert [(await play.ended(id_)).status for id_ in ids[:2]] == ["done", "done"]
    assert (await play.resume(ids[2])).status == "done"


async def test_a_choice_that_is_not_there_and_one_with_a_problem_are_refused(play: Play, stand_in: StandIn) -> None:
    with pytest.raises(NotFound, match="look at its files again"):
        await play.downloads.start(REPO, "../../etc")
    stand_in.repos["maker/folder"].files.pop("config.json")
    with pytest.raises(Conflict, match=r"config.json is missing"):
        await play.downloads.start("maker/folder", "safetensors")


def make_link(path: Path, target: Path) -> None:
    target.mkdir()
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(target)


async def test_a_link_out_of_the_model_folder_is_not_followed(play: Play, tmp_path: Path) -> None:
    if os.name == "nt":
        pytest.skip("links need rights there")
    make_link(play.models / "maker", tmp_path / "outside")
    with pytest.raises(AppError, match="leads out"):
        await play.downloads.start(REPO, CHOICE)


@pytest.mark.parametrize("change", [{"target": "../../x"}, {"target": "/tmp/x"}, {"revision": "../x"}, {"repo": "../x"},
                                    {"files": [{"path": "..", "size": 1, "sha256": "", "git_id": ""}]}, {"files": 7},
                                    {"files": []}, {"files": [{}]}])
async def test_a_plan_on_the_disk_that_was_tampered_with_is_left_alone(play: Play, stand_in: StandIn, tmp_path: Path,
                                                                       change: dict[str, object]) -> None:
    stand_in.fault(FILE, faults.hold_after(HALF))
    id_ = await play.downloads.start(REPO, CHOICE)
    await play.until(id_, lambda state: state.done > 0)
    await play.downloads.pause(id_)
    plan = play.models / FOLDER / id_ / PLAN_FILE
    plan.write_text(json.dumps({**json.loads(plan.read_text()), **change}))
    fresh = Play(stand_in.url, play.models)
    await fresh.downloads.recover()
    assert fresh.downloads.list() == [] and plan.exists()
    await fresh.close()


async def test_a_plan_whose_place_has_become_a_link_out_does_not_stop_the_start(play: Play, stand_in: StandIn, tmp_path: Path,
                                                                                caplog: pytest.LogCaptureFixture) -> None:
    if os.name == "nt":
        pytest.skip("links need rights there")
    stand_in.fault(FILE, faults.hold_after(HALF))
    id_ = await play.downloads.start(REPO, CHOICE)
    await play.until(id_, lambda state: state.done > 0)
    await play.downloads.pause(id_)
    make_link(play.models / "maker", tmp_path / "outside")
    fresh = Play(stand_in.url, play.models)
    await fresh.downloads.recover()
    assert fresh.downloads.list() == [] and "leads out" in caplog.text
    await fresh.close()


CHILD = """
import asyncio, sys
from pathlib import Path
from tests.download_play import Play, REPO, CHOICE
async def main():
    play = Play(sys.argv[1], Path(sys.argv[2]))
    id_ = await play.downloads.start(REPO, CHOICE)
    await play.until(id_, lambda state: state.done > 0)
    print("there", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


def begin_in_a_process(url: str, models: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", CHILD, url, str(models)], cwd=ROOT, stdout=subprocess.PIPE,
                            env=clean_environment())


async def test_after_kill_9_the_download_is_listed_as_paused_and_goes_on(stand_in: StandIn, tmp_path: Path) -> None:
    models = tmp_path / "models"
    stand_in.fault(FILE, faults.hold_after(HALF))
    child = begin_in_a_process(stand_in.url, models)
    assert child.stdout is not None
    line = await asyncio.to_thread(child.stdout.readline)
    assert line == b"there\n"

    other = Play(stand_in.url, models)  # a second Colloquy keeps away while the first lives
    await other.downloads.recover()
    (found,) = other.downloads.list()
    assert (await other.resume(found.id)).what.startswith("Another Colloquy")
    await other.close()

    child.kill()
    child.wait()
    child.stdout.close()
    play = Play(stand_in.url, models)
    await play.downloads.recover()
    (found,) = play.downloads.list()
    assert (found.status, found.title) == ("paused", f"{REPO} {CHOICE}") and 0 < found.done <= HALF and play.names() == []
    assert (await play.resume(found.id)).status == "done"
    assert stand_in.fetched(FILE) == ["", f"bytes={found.done}-"]
    assert (models / REPO / FILE).read_bytes() == stand_in.repos[REPO].files[FILE]
    await play.close()


async def test_a_process_killed_just_after_the_rename_leaves_nothing_to_resume(play: Play, stand_in: StandIn) -> None:
    stand_in.fault(FILE, faults.hold_after(HALF))
    id_ = await play.downloads.start(REPO, CHOICE)
    await play.until(id_, lambda state: state.done > 0)
    await play.downloads.pause(id_)
    part = next(play.models.rglob("*.part"))
    (play.models / REPO).mkdir(parents=True)
    part.replace(play.models / REPO / FILE)
    fresh = Play(stand_in.url, play.models)
    await fresh.downloads.recover()
    assert fresh.downloads.list() == [] and fresh.left() == [f"{REPO}/{FILE}"]
    await fresh.close()


async def test_something_that_came_to_lie_in_the_way_is_not_overwritten(play: Play, stand_in: StandIn) -> None:
    stand_in.fault(FILE, faults.hold_after(HALF))
    id_ = await play.downloads.start(REPO, CHOICE)
    await play.until(id_, lambda state: state.done > 0)
    (play.models / REPO).mkdir(parents=True)
    (play.models / REPO / FILE).write_bytes(b"mine")
    stand_in.may_go_on.set()
    failed = await play.ended(id_)
    assert failed.status == "failed" and "rename or delete it" in failed.what
    assert (play.models / REPO / FILE).read_bytes() == b"mine"
    (play.models / REPO / FILE).unlink()
    n_asked = len(stand_in.fetched(FILE))
    assert (await play.resume(id_)).status == "done" and len(stand_in.fetched(FILE)) == n_asked


async def test_of_two_starts_at_one_moment_one_is_refused(play: Play, stand_in: StandIn) -> None:
    stand_in.fault(FILE, faults.hold_after(HALF))
    both = await asyncio.gather(*[play.downloads.start(REPO, CHOICE) for _ in range(2)], return_exceptions=True)
    assert sorted(type(one).__name__ for one in both) == ["Conflict", "str"]
    stand_in.may_go_on.set()
    assert (await play.ended(play.downloads.list()[0].id)).status == "done" and len(stand_in.fetched(FILE)) == 1


async def test_nothing_is_fetched_twice_at_once(play: Play, stand_in: StandIn) -> None:
    stand_in.fault(FILE, faults.hold_after(HALF))
    id_ = await play.downloads.start(REPO, CHOICE)
    await play.until(id_, lambda state: state.done > 0)
    with pytest.raises(Conflict, match="under way"):
        await play.downloads.start(REPO, CHOICE)
    wait_until(lambda: stand_in.is_held.is_set())
    assert len(play.downloads.list()) == 1
