"""Colloquy's own API: load and unload models, encode, decode and count tokens."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from ..core.errors import BadRequest
from ..engine import Engine, Held
from .answers import field, read_body, refuse_unknown


def routes(engine: Engine) -> APIRouter:
    router = APIRouter(prefix="/v1/internal")

    @router.get("/model/info")
    async def info() -> dict[str, Any]:
        """The model used last, with its loader, options and what they came to; what is loading, and all that is loaded."""
        models = engine.models
        state = engine.watch.state
        loading = None
        if state.status == "loading":
            loading = {"model_name": state.name, "progress": state.fraction, "what": state.what}
        return {**(await _info(engine, models[0]) if models else {"model_name": None, "loader": None}), "loading": loading,
                "loaded": [held.name for held in models]}

    @router.get("/model/list")
    async def listing() -> dict[str, Any]:
        """The names of the models in the model folders."""
        files = await engine.files()
        return {"model_names": [file.name for file in files]}

    @router.post("/model/load")
    async def load(http: Request) -> dict[str, Any]:
        """Load `model_name`; `loader` and `options` are optional, without `options` those saved for the model are used. Answers
        when it is loaded."""
        body = await read_body(http)
        refuse_unknown(body, "model_name", "loader", "options")
        name = field(body, "model_name", str, "")
        if not name:
            raise BadRequest("model_name is missing; GET /v1/internal/model/list names the models.", param="model_name")
        held = await engine.load(name, loader=field(body, "loader", str, ""), options=field(body, "options", dict))
        return await _info(engine, held)

    @router.post("/model/unload")
    async def unload(http: Request) -> dict[str, Any]:
        """Unload `model_name`, or the model used last; its replies end with the text they have."""
        body = await read_body(http)
        refuse_unknown(body, "model_name")
        held = engine.held(field(body, "model_name", str, ""))
        await engine.unload(held.name)
        return {"unloaded": held.name}

    @router.get("/adapter/list")
    async def adapters() -> dict[str, Any]:
        """The LoRA adapters in the adapter folders and the model folders, those that cannot be attached with their `problem`."""
        return {"adapters": [{"name": file.name, "format": file.format, "size_bytes": file.size_bytes, "rank": file.rank,
                              "alpha": file.alpha, "base_model": file.base, "layers": file.layers, "problem": file.problem}
                             for file in await engine.adapter_files()]}

    @router.post("/model/adapters")
    async def set_adapters(http: Request) -> dict[str, Any]:
        """Attach exactly `adapters`, objects with `name` and `weight` (0 to 2), to `model_name`, or to the model used last."""
        body = await read_body(http)
        refuse_unknown(body, "model_name", "adapters")
        wanted = field(body, "adapters", list)
        if wanted is None:
            raise BadRequest("adapters is missing; give a list of objects with name and weight, or an empty list.",
                             param="adapters")
        pairs = [_pair(item) for item in wanted]
        return await _info(engine, await engine.set_adapters(pairs, model=field(body, "model_name", str, "")))

    @router.post("/encode")
    async def encode(http: Request) -> dict[str, Any]:
        """The token ids of `text`; control tokens are recognised only with `control: true`."""
        ids = await _ids(engine, await read_body(http))
        return {"tokens": ids, "length": len(ids)}

    @router.post("/token-count")
    async def count(http: Request) -> dict[str, Any]:
        """How many tokens `text` has."""
        return {"length": len(await _ids(engine, await read_body(http)))}

    @router.post("/decode")
    async def decode(http: Request) -> dict[str, Any]:
        """The text of the ids in `tokens`."""
        body = await read_body(http)
        refuse_unknown(body, "tokens", "model")
        tokens = field(body, "tokens", list)
        if tokens is None or any(not isinstance(item, int) or isinstance(item, bool) for item in tokens):
            raise BadRequest("tokens must be a list of token ids.", param="tokens")
        return {"text": await engine.detokenize(tokens, model=field(body, "model", str, ""))}

    return router


def _pair(item: Any) -> tuple[str, Any]:
    """An adapter's name and weight, which is 1 where it is not given."""
    if not isinstance(item, dict) or not isinstance(item.get("name"), str) or not item.keys() <= {"name", "weight"}:
        raise BadRequest(f'Each of adapters must be an object such as {{"name": "pirate", "weight": 0.8}}; got {str(item)[:80]}.',
                         param="adapters")
    return item["name"], item.get("weight")


async def _ids(engine: Engine, body: dict[str, Any]) -> list[int]:
    """Ids of `text`; `control: true` recognises control tokens in it."""
    refuse_unknown(body, "text", "control", "model")
    text = field(body, "text", str)
    if text is None:
        raise BadRequest("text is missing; give a string.", param="text")
    return await engine.tokenize(text, control=field(body, "control", bool, False), model=field(body, "model", str, ""))


async def _info(engine: Engine, held: Held) -> dict[str, Any]:
    facts = held.facts
    return {"model_name": held.name, "loader": held.spec.name, "context_length": facts.context, "slots": facts.slots,
            "quantization": held.quantization, "architecture": held.file.architecture, "device": facts.device,
            "memory_bytes": facts.memory_bytes, "forecast_bytes": held.forecast_bytes,
            "measured_bytes": await held.measured(), "options": facts.options, "features": sorted(facts.features),
            "params": sorted(held.spec.params),
            "adapters": [{"name": one.name, "weight": one.weight} for one in held.adapters]}
