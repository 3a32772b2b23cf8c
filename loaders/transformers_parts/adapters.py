"""LoRA adapters on a Transformers model through PEFT: looked at before PEFT sees them, injected, weighted, taken out again.

PEFT gets a configuration of our own with the numbers that were checked, never the adapter's file: that holds patterns that would
run as regular expressions, and initialisations that would change the base weights. Its functions that read the model's
state_dict are not used: that corrupts bitsandbytes' 4-bit weights on some CPUs, and copies all weights.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from modules.core.adapters import Stamp, misfit, signature, stamp
from modules.core.errors import BadRequest
from modules.store.adapters import CONFIG, WEIGHTS, Adapter, BadAdapter, Layer, read_peft_adapter

from .placement import is_offloaded


class Adapters:
    """The adapters of one model, on its loader's thread. A model without any is as it was loaded, module for module.

    signature: what acts, as text: caches are of use only under an equal one.
    """

    def __init__(self, model: Any) -> None:
        self.signature = ""
        self._model = model
        self._held: dict[Stamp, tuple[str, Adapter]] = {}  # PEFT's name of each
        self._numbers = count(1)

    def set(self, adapters: Sequence[tuple[str, float]]) -> None:
        """Attach exactly these; raises BadRequest where one does not fit, and all is as it was."""
        checked = {path: self._checked(Path(path)) for path, _ in adapters}
        stamps = [stamp(path, CONFIG, WEIGHTS) for path, _ in adapters]
        new = {one: (f"adapter{next(self._numbers)}", checked[one[0]]) for one in stamps if one not in self._held}
        added: list[tuple[str, Adapter]] = []
        try:
            for name, adapter in new.values():
                tensors = _read(adapter)
                added.append((name, adapter))
                self._inject(name, adapter, tensors)
        except BaseException:
            for name, adapter in added:
                self._take_out(name, adapter)
            raise
        everything = {**self._held, **new}
        for one in set(self._held) - set(stamps):
            self._take_out(*everything[one])
        self._held = {one: everything[one] for one in stamps}
        self._weigh({everything[one][0]: weight for one, (_, weight) in zip(stamps, adapters, strict=True)})
        self.signature = signature(zip(stamps, (weight for _, weight in adapters), strict=True))

    def close(self) -> None:
        """Let the model go."""
        self._model = None
        self._held.clear()

    def _checked(self, path: Path) -> Adapter:
        """The adapter, its headers read; raises BadRequest where it is broken or does not fit the model's modules."""
        try:
            adapter = read_peft_adapter(path)
        except BadAdapter as error:
            raise BadRequest(f"The adapter {path.name} cannot be attached. {error}", param="adapters") from error
        except OSError as error:
            raise BadRequest(f"The adapter {path} cannot be read: {error.strerror or error}.", param="adapters") from error
        if is_offloaded(self._model):
            raise BadRequest("Adapters cannot be attached to a model that lies partly on disk or is moved between devices. Load "
                             "it with device_map single, or with more memory.", param="adapters")
        modules = dict(self._model.named_modules())
        reason = next(filter(None, (_misfit(layer, modules.get(layer.name)) for layer in adapter.layers.values())), "")
        if reason:
            raise misfit(path, reason, adapter.base)
        return adapter

    def _inject(self, name: str, adapter: Adapter, tensors: dict[str, Any]) -> None:
        import torch
        from peft import inject_adapter_in_model

        before = [(parameter, parameter.requires_grad) for parameter in self._model.parameters()]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Already found a `peft_config`")  # a second adapter is meant
            # The matrices are made without memory, and then put in.
            inject_adapter_in_model(_config(adapter), self._model, name, low_cpu_mem_usage=True)
        for parameter, wanted in before:
            parameter.requires_grad = wanted
        for layer in adapter.layers.values():
            module = self._model.get_submodule(layer.name)
            device = _device(module.get_base_layer())
            for side, tensor in ((module.lora_A, layer.tensor_a), (module.lora_B, layer.tensor_b)):
                side[name].weight = torch.nn.Parameter(tensors[tensor].to(device), requires_grad=False)

    def _take_out(self, name: str, adapter: Adapter) -> None:
        """Remove an adapter, whole or half injected; a module without any other is put back as it was."""
        from peft.tuners.lora import LoraLayer

        for layer in adapter.layers.values():
            module = self._model.get_submodule(layer.name)
            if not isinstance(module, LoraLayer):
                continue
            if name in module.lora_A:
                module.delete_adapter(name)
            if not module.lora_A:
                parent, _, last = layer.name.rpartition(".")
                setattr(self._model.get_submodule(parent), last, module.get_base_layer())
        configs = getattr(self._model, "peft_config", {})
        configs.pop(name, None)
        if not configs and hasattr(self._model, "peft_config"):
            del self._model.peft_config

    def _weigh(self, weights: dict[str, float]) -> None:
        """Set how strongly each acts; one of weight 0 is left out of the computation."""
        from peft.tuners.lora import LoraLayer

        acting = [name for name, weight in weights.items() if weight]
        for module in self._model.modules():
            if isinstance(module, LoraLayer):
                here = [name for name in acting if name in module.lora_A]
                module.set_adapter(here, inference_mode=True)
                for name in here:
                    module.set_scale(name, weights[name])


def _config(adapter: Adapter) -> Any:
    """PEFT's configuration with the checked numbers alone; scales go in as alphas over the ranks."""
    from peft import LoraConfig

    rank = Counter(layer.rank for layer in adapter.layers.values()).most_common(1)[0][0]
    alphas = {layer.name: layer.scale * layer.rank for layer in adapter.layers.values()}
    alpha = Counter(alphas.values()).most_common(1)[0][0]
    return LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=list(adapter.layers), lora_dropout=0.0, bias="none", init_lora_weights=False,
        inference_mode=True,
        rank_pattern={f"^{re.escape(layer.name)}": layer.rank for layer in adapter.layers.values() if layer.rank != rank},
        alpha_pattern={f"^{re.escape(name)}": value for name, value in alphas.items() if value != alpha})


def _read(adapter: Adapter) -> dict[str, Any]:
    """The tensors in float32, as PEFT computes with them; raises BadRequest where one holds no usable numbers."""
    import torch
    from safetensors import safe_open

    tensors = {}
    with _plain_errors(adapter), safe_open(str(adapter.weights), framework="pt", device="cpu") as file:
        for layer in adapter.layers.values():
            for name in (layer.tensor_a, layer.tensor_b):
                tensor = file.get_tensor(name).to(torch.float32)
                if not torch.isfinite(tensor).all():
                    raise BadRequest(f"The adapter {adapter.weights.parent.name} holds NaN or infinity in {name[:120]!r}, so the "
                                     "model would write nonsense; download it again.", param="adapters")
                tensors[name] = tensor
    return tensors


def _misfit(layer: Layer, module: Any) -> str:
    """Why this layer's change does not fit the module, or ""."""
    from peft.tuners.lora import LoraLayer

    base = module.get_base_layer() if isinstance(module, LoraLayer) else module
    if base is None:
        return f"it changes {layer.name[:120]!r}, which the model does not have"
    shape = _shape(base)
    if shape is None:
        return f"it changes {layer.name[:120]!r}, which is no matrix that can be adapted ({type(base).__name__})"
    wanted = (layer.shape_b[0], layer.shape_a[1])
    return "" if wanted == shape else (f"for {layer.name[:120]!r} it has a change of shape {list(wanted)}, where the model's is "
                                       f"{list(shape)}")


def _shape(module: Any) -> tuple[int, int] | None:
    """(out, in) of a linear layer, quantized or not, or of GPT-2's transposed one; None for anything else."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, nn.Linear):
        return int(module.out_features), int(module.in_features)
    if isinstance(module, Conv1D):
        return int(module.weight.shape[1]), int(module.weight.shape[0])
    return None


def _device(base: Any) -> Any:
    return base.weight.device


@contextlib.contextmanager
def _plain_errors(adapter: Adapter) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, OSError) as error:
        words = " ".join(str(error).split())[:300]
        raise BadRequest(f"The adapter {adapter.weights.parent.name} cannot be read: {words}. Download it again.",
                         param="adapters") from error
