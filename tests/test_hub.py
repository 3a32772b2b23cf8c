"""What is asked of the hub: answers bounded and checked, failures as sentences, and the token to the hub's own port alone."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from modules.core.errors import AppError, BadRequest, NotFound
from modules.core.options import read_settings
from modules.models import hub as hub_file
from modules.models.hub import Hub, HubFailed, check_repository
from modules.models.hub_search import read_card, search
from modules.models.hub_token import HubToken
from tests.hub_stand_in import COMMIT, Repo, StandIn, body, gguf_bytes, status

pytestmark = pytest.mark.asyncio


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[StandIn]:
    with StandIn() as stand_in:
        stand_in.repos["maker/small-GGUF"] = Repo({"small-Q4_K_M.gguf": gguf_bytes(tmp_path)},
                                                  info={"gguf": {"total": 500_000_000, "context_length": 2048}})
        stand_in.repos["maker/folder"] = Repo({"model.safetensors": b"x"})
        yield stand_in


@pytest.fixture
async def waits() -> list[float]:
    return []


@pytest.fixture
async def hub(stand_in: StandIn, waits: list[float]) -> AsyncIterator[Hub]:
    async def pause(seconds: float) -> None:
        waits.append(seconds)

    hub = Hub(stand_in.url, pause=pause)
    yield hub
    await hub.close()


async def test_a_search_asks_for_the_kind_and_order_and_reads_the_hits(hub: Hub, stand_in: StandIn) -> None:
    hits = await search(hub, "SMALL", "gguf", "likes")
    assert [(hit.repo, hit.downloads, hit.likes, hit.updated, hit.licence, hit.is_gated, hit.formats) for hit in hits] == [
        ("maker/small-GGUF", 1234, 56, "2026-05-04", "apache-2.0", False, ("gguf",))]
    assert "filter=gguf" in stand_in.seen[-1].path and "sort=likes" in stand_in.seen[-1].path
    assert {hit.repo for hit in await search(hub, "", "any", "newest")} == {"maker/small-GGUF", "maker/folder"}
    assert "sort=createdAt" in stand_in.seen[-1].path


async def test_a_card_says_what_a_person_has_to_know(hub: Hub, stand_in: StandIn) -> None:
    stand_in.repos["maker/small-GGUF"].is_gated = True
    card = await read_card(hub, f"{stand_in.url}/maker/small-GGUF/tree/main")
    assert (card.repo, card.revision, card.licence, card.gated) == ("maker/small-GGUF", COMMIT, "apache-2.0", "auto")
    assert (card.n_params, card.context, card.base_models) == (500_000_000, 2048, ("maker/base",))
    assert card.text == "# A model\n\nIt was made for tests."


async def test_a_stranger_s_text_is_bounded_and_of_the_right_kind(hub: Hub, stand_in: StandIn) -> None:
    repo = stand_in.repos["maker/small-GGUF"]
    repo.readme = "x" * 1_000_000
    repo.info = {"downloads": -5, "likes": "many", "lastModified": 7, "sha": "../../x",
                 "cardData": {"license": "a\nb\x1b[31m" * 99},
                 "gguf": [], "tags": {"license:x": 1}, "gated": {"x": 1}}
    card = await read_card(hub, "maker/small-GGUF")
    assert len(card.text) == 64 << 10 and (card.downloads, card.likes, card.updated, card.revision) == (0, 0, "", "main")
    assert card.licence.isprintable() and len(card.licence) <= 120 and card.gated == "manual"
    stand_in.fault("api", body(json.dumps([{"id": name} for name in ("../x", "a/b/c", "ok/one", 7, None, "a/..", "x" * 500)]
                                          + [1, None, []]).encode()))
    assert [hit.repo for hit in await search(hub, "x")] == ["ok/one"]


@pytest.mark.parametrize(("raw", "words"), [(b"[" + b'"x",' * 3_000_000 + b"1]", "more than 8 MB"), (b"[" * 200_000, "no JSON"),
                                            (b"\xff\xfe", "no JSON")])
async def test_an_answer_that_is_no_list_is_a_sentence(hub: Hub, stand_in: StandIn, raw: bytes, words: str) -> None:
    stand_in.fault("api", body(raw))
    with pytest.raises(HubFailed, match=words):
        await search(hub, "x")


async def test_trouble_of_the_hub_s_own_is_waited_out_and_a_refusal_is_not(hub: Hub, stand_in: StandIn,
                                                                          waits: list[float]) -> None:
    stand_in.fault("api", status(500), status(429, Retry_After="7"))
    assert await search(hub, "small")
    assert waits == [1.0, 7.0]
    stand_in.fault("api", *[status(503)] * 3)
    with pytest.raises(HubFailed, match="status 503"):
        await search(hub, "small")
    with pytest.raises(NotFound, match="no/such"):
        await read_card(hub, "no/such")
    n_seen = len(stand_in.seen)
    stand_in.fault("api", status(403))
    with pytest.raises(HubFailed, match="terms"):
        await search(hub, "small")
    assert len(stand_in.seen) == n_seen + 1


async def test_no_network_and_offline_say_what_to_do(waits: list[float]) -> None:
    async def pause(seconds: float) -> None:
        waits.append(seconds)

    with StandIn() as gone:
        url = gone.url
    for hub, words in ((Hub(url, pause=pause), "cannot be reached.*--hub-url"), (Hub(url, is_offline=True), "without --offline")):
        with pytest.raises(HubFailed, match=words):
            await search(hub, "x")
        await hub.close()


async def test_a_slow_list_is_given_up(hub: Hub, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.hub_stand_in import trickle

    monkeypatch.setattr(hub_file, "ANSWER_SECONDS", 0.3)
    stand_in.repos["maker/small-GGUF"].files["slow/slow/slow"] = bytes(1000)
    stand_in.fault("slow/slow/slow", trickle(1, 0.05))
    with pytest.raises(HubFailed, match="did not answer within"):
        await hub.text("/maker/small-GGUF/resolve/main/slow/slow/slow", 1000)


async def test_the_token_goes_to_the_hub_and_never_on_to_the_cdn(stand_in: StandIn) -> None:
    stand_in.repos["maker/small-GGUF"].is_gated = True
    hub = Hub(stand_in.url, lambda: stand_in.token)
    async with hub.open(f"{stand_in.url}/maker/small-GGUF/resolve/main/small-Q4_K_M.gguf") as answer:
        assert await answer.response.aread()
    await hub.close()
    sent = {seen.server: seen.headers.get("authorization") for seen in stand_in.seen}
    assert sent == {"hub": f"Bearer {stand_in.token}", "cdn": None}


@pytest.mark.parametrize(("location", "is_sent"), [
    ("{hub}/api/models/maker/small-GGUF", True), ("/api/models/maker/small-GGUF", True),
    ("{cdn}/cdn/maker--folder/model.safetensors", False)])
async def test_a_redirect_keeps_the_token_only_where_scheme_host_and_port_are_the_hub_s(stand_in: StandIn, location: str,
                                                                                        is_sent: bool) -> None:
    stand_in.fault("api", status(302, Location=location.format(hub=stand_in.url, cdn=stand_in.cdn)))
    hub = Hub(stand_in.url, lambda: stand_in.token)
    async with hub.open(f"{stand_in.url}/api/models"):
        pass
    await hub.close()
    assert ("authorization" in stand_in.seen[-1].headers) is is_sent and len(stand_in.seen) == 2


async def test_the_next_page_is_the_hub_s_own_or_none(hub: Hub, stand_in: StandIn) -> None:
    for link, is_taken in ((f"{stand_in.url}/api/models?cursor=1", True), (f"{stand_in.cdn}/steal", False),
                           ("https://x.example/", False)):
        assert bool(hub._next_page({"link": f'<{link}>; rel="next"'})) is is_taken


async def test_endless_redirects_end(stand_in: StandIn) -> None:
    stand_in.fault("api", *[status(302, Location=f"{stand_in.url}/api/models")] * 20)
    hub = Hub(stand_in.url)
    with pytest.raises(HubFailed, match="more than 5 times"):
        await search(hub, "x")
    await hub.close()


async def test_a_token_is_not_sent_in_the_open_over_a_network() -> None:
    assert Hub("https://mirror.example").may_carry_token and Hub("http://localhost:9").may_carry_token
    assert not Hub("http://mirror.example").may_carry_token
    for bad in ("ftp://x", "huggingface.co", "https://user:pass@x", "https://x/?q=1"):
        with pytest.raises(BadRequest) as caught:
            Hub(bad)
        assert "pass" not in caught.value.message


async def test_a_token_comes_from_setting_file_or_variable_and_is_in_no_error_and_no_representation(
        tmp_path: Path, caplog: pytest.LogCaptureFixture, stand_in: StandIn) -> None:
    caplog.set_level(logging.DEBUG)
    path, secret = tmp_path / "hub_token", "hf_verysecretverysecret"
    assert HubToken(path, environ={}).get() == "" and HubToken(path, environ={}).source() == ""
    assert "HF_TOKEN" in HubToken(path, environ={"HF_TOKEN": "a"}).source()
    token = HubToken(path, environ={"HF_TOKEN": "a"})
    token.save(f" {secret}\n")
    assert token.get() == secret and "saved here" in token.source() and HubToken(path, "set", {"HF_TOKEN": "a"}).get() == "set"
    if os.name != "nt":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for bad in ("", "two words", secret + "\nX-Header: 1", "ü", secret * 100):
        with pytest.raises(BadRequest) as caught:
            token.save(bad)
        assert secret not in caught.value.message
    hub = Hub(stand_in.url, token.get)
    stand_in.fault("api", status(401), status(403), status(404), *[status(500)] * 3)

    async def at_once(seconds: float) -> None:
        pass

    hub.pause = at_once
    for _ in range(4):
        with pytest.raises(AppError) as failed:
            await search(hub, "x")
        assert secret not in str(failed.value.to_json())
    await hub.close()
    settings = read_settings([], {"COLLOQUY_HUB_TOKEN": secret}, {})
    assert settings.hub_token == secret and secret not in repr(settings) + repr(token) + repr(HubToken(path, secret))
    with pytest.raises(BadRequest) as refused:
        read_settings([], {"COLLOQUY_HUB_TOKEN": secret * 100}, {})
    assert secret[:8] not in refused.value.message
    own = [record.getMessage() for record in caplog.records]
    assert secret not in "\n".join(own)
    token.forget()
    assert not path.exists() and token.get() == "a"


async def test_names_of_repositories() -> None:
    assert check_repository(" https://huggingface.co/Qwen/Qwen3-4B-GGUF/blob/main/x.gguf ") == "Qwen/Qwen3-4B-GGUF"
    for bad in ("", "one", "a/b/c", "a/b/../..", "../x/y", "a/..", "a/b--c", "a/.b", "a\\b/c", "a/b\0", "é/x", "a/" + "b" * 200,
                "https://huggingface.co/..", "file:///etc/passwd"):
        with pytest.raises(BadRequest):
            check_repository(bad)
