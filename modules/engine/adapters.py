"""Attaches LoRA adapters to a loaded model and takes them off again, between replies and without loading it again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..core.adapters import AdapterFile, Attached, check
from ..core.errors import BadRequest, Busy
from ..models.adapters import AdapterCatalog
from .models import Held, LoadWatch


async def attach(held: Held, catalog: AdapterCatalog, wanted: Sequence[tuple[str, float]], watch: LoadWatch) -> None:
    """Let exactly these (name, weight) be attached to the model; () takes all off. On the event loop.

    Raises NotFound for an unknown name, BadRequest for one that does not fit or a loader that takes none, Busy while replies are
    being written or other adapters attached; then all is as it was.
    """
    wanted = check(wanted)
    n_live = sum(not run.done for run in held.runs.values())
    if n_live:
        raise Busy(f"{held.name} is writing {n_live} replies; set its adapters when they are done, or stop them.")
    if held.is_attaching:
        raise Busy(f"Other adapters are being attached to {held.name}; try again in a moment.")
    await asyncio.shield(begin(held, catalog, wanted, watch))


def begin(held: Held, catalog: AdapterCatalog, wanted: Sequence[tuple[str, float]], watch: LoadWatch) -> asyncio.Task[None]:
    """Attach them in a task of its own, so that a caller who leaves does not leave the model's state unknown.

    From this call on, runs of the model wait for its end. No run is live, and no other adapters are being attached.
    """

    async def put_on() -> None:
        if "adapters" not in held.facts.features:
            if wanted:
                raise BadRequest(f"{held.spec.title} takes no adapters, so none can be attached to {held.name}. Load the model "
                                 "with Transformers or llama.cpp.", param="adapters")
            return
        attached = []
        for name, weight in wanted:
            file = await asyncio.to_thread(catalog.find, name)
            _refuse_misfits(held, file)
            attached.append(Attached(file.name, file.path, weight))
        await held.worker.set_adapters([(one.path, one.weight) for one in attached])
        held.adapters, held.adapters_problem = tuple(attached), ""
        watch.touch()

    held.attaching = asyncio.create_task(put_on(), name=f"adapters of {held.name}")
    return held.attaching


def _refuse_misfits(held: Held, file: AdapterFile) -> None:
    if file.problem:
        raise BadRequest(f"The adapter {file.name} cannot be attached. {file.problem}", param="adapters")
    if file.format != held.spec.adapters:
        kinds = {"gguf": "a GGUF file", "safetensors": "a PEFT folder", "": "none"}
        raise BadRequest(f"The adapter {file.name} is {kinds[file.format]}, and {held.spec.title} takes "
                         f"{kinds[held.spec.adapters]}. Convert the adapter, or load the model in the other format.",
                         param="adapters")
