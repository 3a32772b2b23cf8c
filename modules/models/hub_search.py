"""What a hub says of its models: a search's hits, and one repository's card. Strangers wrote it all; it is bounded here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from ..core.errors import AppError, NotFound
from .hub import Hub, check_repository

Kind = Literal["gguf", "safetensors", "any"]
Order = Literal["downloads", "likes", "newest"]
ORDERS: dict[Order, str] = {"downloads": "downloads", "likes": "likes", "newest": "createdAt"}
MAX_HITS = 50
MAX_QUERY = 200
MAX_CARD = 64 << 10      # bytes of a README that are read
MAX_TAGS = 2000
_SHOWN = ("downloads", "likes", "lastModified", "gated", "tags")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Hit:
    """One repository that a search found. updated: year-month-day; formats: what its tags say that it holds."""

    repo: str
    downloads: int
    likes: int
    updated: str
    licence: str
    is_gated: bool
    formats: tuple[str, ...]


@dataclass(frozen=True)
class Card:
    """One repository. revision: the commit that its files are listed and fetched at.

    gated: "", "auto" or "manual" (a person there answers). n_params and context are 0, texts "" where the hub does not say.
    text: the README's beginning, without the head that machines read.
    """

    repo: str
    revision: str
    licence: str
    gated: str
    base_models: tuple[str, ...]
    downloads: int
    likes: int
    updated: str
    n_params: int
    context: int
    text: str


async def search(hub: Hub, text: str, kind: Kind = "gguf", order: Order = "downloads") -> list[Hit]:
    """At most 50 repositories, in the hub's order; those whose names are none are left out."""
    query: dict[str, Any] = {"search": text.strip()[:MAX_QUERY], "sort": ORDERS[order], "limit": MAX_HITS, "expand": _SHOWN}
    found, _ = await hub.json("/api/models", query if kind == "any" else {**query, "filter": kind})
    hits = [_hit(entry) for entry in (found if isinstance(found, list) else [])[:MAX_HITS] if isinstance(entry, dict)]
    return [hit for hit in hits if hit is not None]


async def read_card(hub: Hub, repo: str) -> Card:
    """The card of owner/name; a README that is missing or may not be read is "". Raises BadRequest, NotFound, HubFailed."""
    repo = check_repository(repo)
    about, _ = await hub.json(f"/api/models/{repo}")
    about = _object(about)
    data, gguf, safetensors = (_object(about.get(key)) for key in ("cardData", "gguf", "safetensors"))
    revision = str(about.get("sha") or "")
    revision = revision if _COMMIT.fullmatch(revision) else "main"
    try:
        text = await hub.text(f"/{repo}/resolve/{revision}/README.md", MAX_CARD)
    except NotFound:
        text = ""
    except AppError as error:
        text = f"The card could not be read: {error.message}"
    gated = about.get("gated")
    bases = data.get("base_model")
    bases = [bases] if isinstance(bases, str) else bases if isinstance(bases, list) else []
    gated = gated if gated in ("auto", "manual") else "manual" if gated else ""
    return Card(repo, revision, _licence(data, about.get("tags")), gated,
                tuple(_line(base) for base in bases[:10] if isinstance(base, str)), _count(about.get("downloads")),
                _count(about.get("likes")), _day(about.get("lastModified")),
                _count(gguf.get("total")) or _count(safetensors.get("total")), _count(gguf.get("context_length")),
                _without_head(text))


def _hit(entry: dict[str, Any]) -> Hit | None:
    try:
        repo = check_repository(str(entry.get("id", "")))
    except AppError:
        return None
    tags = {tag for tag in _tags(entry.get("tags")) if tag in ("gguf", "safetensors")}
    return Hit(repo, _count(entry.get("downloads")), _count(entry.get("likes")), _day(entry.get("lastModified")),
               _licence({}, entry.get("tags")), bool(entry.get("gated")), tuple(sorted(tags)))


def _licence(data: dict[str, Any], tags: Any) -> str:
    """The licence's name where it has one of its own, else the short name."""
    names = [data.get("license_name"), data.get("license")]
    names += [tag.removeprefix("license:") for tag in _tags(tags) if tag.startswith("license:")]
    return next((_line(name) for name in names if isinstance(name, str) and name and name != "other"), "")


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _tags(value: Any) -> list[str]:
    return [tag for tag in value[:MAX_TAGS] if isinstance(tag, str)] if isinstance(value, list) else []


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else 0


def _day(value: Any) -> str:
    return value[:10] if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d", value) else ""


def _line(text: str) -> str:
    """One short printable line of a stranger's text."""
    return "".join(char if char.isprintable() else " " for char in text[:120]).strip()


def _without_head(text: str) -> str:
    """A README without the YAML between `---` lines at its start."""
    text = text.replace("\r\n", "\n").replace("\0", "")
    if not text.startswith("---\n"):
        return text.strip()
    end = text.find("\n---", 3)
    return text[end + 4:].strip() if end >= 0 else ""
