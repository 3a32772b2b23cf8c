"""LoRA adapters on a GGUF model: looked at before llama.cpp reads them, kept by path, and set on the context."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules.core.adapters import Stamp, misfit, signature, stamp
from modules.core.errors import BadRequest
from modules.store.adapters import Adapter, BadAdapter, read_gguf_adapter
from modules.store.gguf_header import BadHeader, read_gguf
from modules.store.headers import split_parts

if TYPE_CHECKING:
    from .context import Context
    from .library import Library

# llama.cpp computes with these in ways that its own check of an adapter's shapes does not cover.
NOT_ADAPTED = ("token_embd.weight",)


class Adapters:
    """The adapters of one model, on its loader's thread. Freed with the model, or when they are no longer attached.

    signature: what acts, as text: KV cells are of use only under an equal one.
    """

    def __init__(self, library: Library, model: Any, path: str) -> None:
        self.signature = ""
        self._library, self._model, self._path = library, model, path
        self._held: dict[Stamp, Any] = {}

    def set(self, context: Context, adapters: Sequence[tuple[str, float]]) -> None:
        """Attach exactly these; raises BadRequest where one does not fit, and all is as it was."""
        stamps = [stamp(path) for path, _ in adapters]
        new = [one for one in stamps if one not in self._held]
        base = self._base() if new else {}
        for one in new:
            self._check(Path(one[0]), base)
        loaded: dict[Stamp, Any] = {}
        try:
            for one in new:
                loaded[one] = self._load(one[0])
            everything = {**self._held, **loaded}
            acting = [(everything[one], weight) for one, (_, weight) in zip(stamps, adapters, strict=True) if weight]
            self._put_on(context, acting)
        except BaseException:
            for handle in loaded.values():
                self._library.c.llama_adapter_lora_free(handle)
            raise
        for one in set(self._held) - set(stamps):
            self._library.c.llama_adapter_lora_free(self._held[one])
        self._held = {one: everything[one] for one in stamps}
        self.signature = signature(zip(stamps, (weight for _, weight in adapters), strict=True))

    def _put_on(self, context: Context, acting: Sequence[tuple[Any, float]]) -> None:
        c, n = self._library.c, len(acting)
        handles = (c.llama_adapter_lora_p_ctypes * n)(*(handle for handle, _ in acting))
        scales = (ctypes.c_float * n)(*(weight for _, weight in acting))
        code = c.llama_set_adapters_lora(context.handle, handles if n else None, n, scales if n else None)
        if code:
            raise self._library.failure(f"llama.cpp did not take the adapters (code {code})", "Detach them and try again.")

    def _load(self, path: str) -> Any:
        self._library.log.errors.clear()
        handle = self._library.c.llama_adapter_lora_init(self._model, os.fsencode(path))
        if not handle:
            failure = self._library.failure(f"{Path(path).name} could not be attached", "Check that it was made for this model.")
            raise BadRequest(failure.message, param="adapters", log=failure.log) from failure
        return handle

    def _base(self) -> dict[str, tuple[int, ...]]:
        """The base model's tensors by name, with their dimensions, the length of a row first; "" has its architecture's place."""
        found: dict[str, tuple[int, ...]] = {}
        try:
            headers = [read_gguf(part) for part in split_parts(Path(self._path))]
        except (BadHeader, OSError) as error:
            raise BadRequest(f"The model's own file cannot be read any more ({error}); load it again, then attach adapters.",
                             param="adapters") from error
        self._architecture = str(headers[0].values.get("general.architecture", ""))
        for header in headers:
            found |= {name: dims for name, (_, dims) in header.tensors.items()}
        return found

    def _check(self, path: Path, base: dict[str, tuple[int, ...]]) -> None:
        """Raises BadRequest where the adapter is broken or does not fit the model's tensors."""
        try:
            adapter = read_gguf_adapter(path)
        except BadAdapter as error:
            raise BadRequest(f"The adapter {path.name} cannot be attached. {error}", param="adapters") from error
        except OSError as error:
            raise BadRequest(f"The adapter {path} cannot be read: {error.strerror or error}.", param="adapters") from error
        reason = self._misfit(adapter, base)
        if reason:
            raise misfit(path, reason, adapter.base)

    def _misfit(self, adapter: Adapter, base: dict[str, tuple[int, ...]]) -> str:
        if adapter.architecture != self._architecture:
            return f"it is for the architecture {adapter.architecture[:40]!r}, and the model is a {self._architecture!r}"
        for layer in adapter.layers.values():
            dims = base.get(layer.name)
            if dims is None:
                return f"it changes {layer.name!r}, which the model does not have"
            if layer.name in NOT_ADAPTED:
                return f"it changes {layer.name!r}, which llama.cpp cannot adapt safely"
            wanted = (*reversed(dims[2:]), dims[1], dims[0]) if len(dims) > 1 else dims
            if (*layer.shape_b[:-1], layer.shape_a[-1]) != wanted:
                return (f"for {layer.name!r} it has a change of shape {[*layer.shape_b[:-1], layer.shape_a[-1]]}, where the "
                        f"model's is {list(wanted)}")
        return ""

