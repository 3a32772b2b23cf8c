"""The page's own scripts and style, served at an address with their content's hash, so a browser may keep them."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

ASSETS = Path(__file__).parent / "assets"
TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}


@lru_cache(maxsize=1)
def assets() -> dict[str, bytes]:
    """Every file that may be served, by name; read once."""
    return {path.name: path.read_bytes() for path in sorted(ASSETS.iterdir()) if path.suffix in TYPES}


@lru_cache(maxsize=1)
def assets_version() -> str:
    """A hash of all of them: modules import one another by relative address, so they change version together."""
    digest = hashlib.sha256()
    for name, content in assets().items():
        digest.update(f"{name} {len(content)} ".encode() + content)
    return digest.hexdigest()[:12]


def import_of(script: str) -> str:
    """The JavaScript expression that imports one of them."""
    return f'import(new URL("ui-static/{assets_version()}/{script}", document.baseURI))'


async def serve_asset(request: Request) -> Response:
    """GET /ui-static/{version}/{name}. An old version gets today's file, but may not keep it."""
    content = assets().get(request.path_params["name"])
    if content is None:
        return Response("No such file.", status_code=404, media_type="text/plain")
    is_current = request.path_params["version"] == assets_version()
    keep = "public, max-age=31536000, immutable" if is_current else "no-cache"
    return Response(content, media_type=TYPES[Path(request.path_params["name"]).suffix],
                    headers={"Cache-Control": keep, "X-Content-Type-Options": "nosniff"})
