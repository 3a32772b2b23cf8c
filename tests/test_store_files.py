"""Names stay in their folder, reads are bounded, writes are whole or not there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modules.core.errors import AppError, BadRequest, NotFound, TooLarge
from modules.store import files, yamlfile
from modules.store.files import read_bounded, safe_path, set_aside, write_atomic
from modules.store.yamlfile import parse_yaml, read_yaml, write_yaml

BAD_NAMES = ["", " ", ".", "..", "../up", "a/b", "a\\b", "/etc/passwd", "C:", "C:\\x", "c:x", "\\\\host\\share", "a\x00b",
             "a\nb", ".hidden", "dot.", "space ", " space", "CON", "con", "NUL.txt", "com1", "LPT9", "COM¹", "aux .x", "a*b",
             "a?", 'a"b', "a<b", "a|b", "x" * 121, "字" * 120, "lone \ud800", "a\x7fb", "‥/x", "..\\..\\x"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_could_leave_its_folder_or_not_be_stored_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadRequest, match="cannot be a name"):
        safe_path(tmp_path, name, ".yaml")


@pytest.mark.parametrize("name", ["Mr. Quill", "Zoë", "日本語", "a-b_c (2)", "console", "conner", "a..b", "🦊", "x" * 120])
def test_ordinary_names_are_accepted(tmp_path: Path, name: str) -> None:
    assert safe_path(tmp_path, name, ".yaml").parent == tmp_path


def test_both_spellings_of_an_accent_are_one_file(tmp_path: Path) -> None:
    assert safe_path(tmp_path, "e\u0301", ".yaml") == safe_path(tmp_path, "\u00e9", ".yaml")


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(alphabet=st.sampled_from("./\\:\x00 ab~$%\u2215\u3002"), max_size=8) | st.text(max_size=130))
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    try:
        path = safe_path(tmp_path, name, ".yaml")
    except BadRequest:
        return
    assert path.parent == tmp_path and path.resolve().parent == tmp_path.resolve() and path.name.endswith(".yaml")


def test_a_link_out_of_the_folder_is_refused_and_one_within_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "evil.yaml").symlink_to(tmp_path / "secret")
    (folder / "good.yaml").symlink_to(folder / "real.yaml")
    with pytest.raises(BadRequest, match="leads out"):
        safe_path(folder, "evil", ".yaml")
    safe_path(folder, "good", ".yaml")


def test_a_read_is_bounded_and_never_waits(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    with pytest.raises(TooLarge, match="5 bytes"):
        read_bounded(path, 4)
    with pytest.raises(NotFound):
        read_bounded(tmp_path / "none", 4)
    os.mkfifo(tmp_path / "pipe")
    for odd in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(AppError):
            read_bounded(odd, 4)


def test_a_file_without_a_length_is_bounded_too() -> None:
    """Files under /proc say that they have 0 bytes."""
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc on this system")
    with pytest.raises(TooLarge):
        read_bounded(Path("/proc/self/status"), 10)


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_a_write_that_fails_at_any_step_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(files.os, step, fail)
        with pytest.raises(AppError, match="No space left"):
            write_atomic(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    write_atomic(path, b"new", private=True)
    assert path.read_bytes() == b"new" and stat.S_IMODE(path.stat().st_mode) == 0o600


def test_setting_files_aside_overwrites_none(tmp_path: Path) -> None:
    for content in ("one", "two", "three"):
        (tmp_path / "x.yaml").write_text(content)
        set_aside(tmp_path / "x.yaml", tmp_path / "trash")
    assert sorted(path.read_text() for path in (tmp_path / "trash").iterdir()) == ["one", "three", "two"]


# ---- YAML

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


LEAVES = (TEXT | st.booleans() | st.none() | st.integers(-2**70, 2**70) | st.floats(allow_nan=False, allow_infinity=False)
          | st.sampled_from(["no", "0123", "1_000", "12:30", "2024-01-01", "0x1f", "~", ".5", "1e3", "=", "<<", "a\rb\n"]))
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(values=st.dictionaries(TEXT, VALUES, max_size=4))
def test_yaml_that_we_write_is_read_back_the_same(tmp_path: Path, values: dict[str, object]) -> None:
    write_yaml(tmp_path / "x.yaml", values)
    assert read_yaml(tmp_path / "x.yaml") == values


def test_what_people_type_stays_text() -> None:
    typed = "\ufeffname: No\nborn: 2024-01-01\ntime: 12:30\nid: 0123\non: yes\nn: 3\nf: -0.5\nt: true\nz: ~"
    assert parse_yaml(typed.encode(), "x") == {"name": "No", "born": "2024-01-01", "time": "12:30", "id": "0123", "on": "yes",
                                               "n": 3, "f": -0.5, "t": True, "z": None}


BOMB = b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (c + 1, c + 1, c, c) for c in range(97, 115))


@pytest.mark.parametrize("content", [
    BOMB, b"a: &a [*a]", b"!!python/object/apply:os.system ['true']", b"x: !!python/name:os.system", b"a: !!binary aGk=",
    b"- a list", b"just text", b"1: number as key", b"? [a, b]\n: c", b"a: b: c", b"a: [", b"\xff\xfe", b"a: \x01",
    b"[" * 2000, b"{a: " * 2000, b"- " * 5000,
    b"a: " + b"[" * 40 + b"]" * 40, b"a: [" + b"1," * 100_001 + b"]"])
def test_hostile_or_broken_yaml_is_refused_by_name(content: bytes) -> None:
    with pytest.raises(BadRequest, match=r"card\.yaml"):
        parse_yaml(content, "card.yaml")


def test_a_yaml_file_over_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamlfile, "MAX_BYTES", 100)
    (tmp_path / "x.yaml").write_bytes(b"a: " + b"x" * 100)
    with pytest.raises(TooLarge):
        read_yaml(tmp_path / "x.yaml")
