"""Forward passes over one sequence: token ids and a cache in, float32 rows on the CPU out."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .cache import cut, is_plain, new_cache
from .idle import common_prefix

if TYPE_CHECKING:
    import numpy as np

CHUNK = 512  # tokens a pass of score, logits and embed evaluates
PROBE_TOKENS = 12


class Forward:
    """A Transformers causal model. Each method is one unit of work within torch.inference_mode; nothing spans two calls."""

    def __init__(self, model: Any, device: str) -> None:
        self.model, self.device = model, device
        self.config = model.config
        accepted = inspect.signature(model.forward).parameters
        self.room = 0  # tokens that a run's cache takes memory for at its start
        self._keep = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self._takes_positions = "position_ids" in accepted
        self._scratch: tuple[list[int], Any] = ([], None)
        self.takes_chunks = is_plain(self.new_cache()) or self._chunks_agree()

    def new_cache(self) -> Any:
        return new_cache(self.config)

    def run_cache(self) -> Any:
        """An empty cache for a run, with `room`."""
        return new_cache(self.config, self.room)

    def last_row(self, ids: Sequence[int], n_held: int, cache: Any) -> np.ndarray:
        """Evaluate the ids after the n_held that the cache holds; (vocab_size,) float32 logits that follow the last one."""
        import torch

        with torch.inference_mode():
            return self._numpy(self._outputs(ids, n_held, cache, **self._keep).logits[0, -1])

    def rows_after(self, ids: Sequence[int], n_held: int, cache: Any) -> np.ndarray:
        """Evaluate the ids after the n_held that the cache holds; (len(ids), vocab_size) float32 logits that follow each."""
        import torch

        with torch.inference_mode():
            return self._numpy(self._outputs(ids, n_held, cache).logits[0])

    def rows(self, ids: Sequence[int], start: int) -> np.ndarray:
        """(len(ids) - start, vocab_size) float32: the logits after each position from `start` on."""
        return self._numpy(self._rows(ids, start))

    def log_chances(self, ids: Sequence[int], start: int, targets: Sequence[int]) -> np.ndarray:
        """(len(targets),) float32: the log-probability of targets[i] after position start + i of the ids."""
        import torch

        with torch.inference_mode():
            rows = self._rows(ids, start).float().log_softmax(dim=-1)
            wanted = torch.tensor(list(targets), device=rows.device).unsqueeze(1)
            return self._numpy(rows.gather(1, wanted).squeeze(1))

    def mean_hidden(self, ids: Sequence[int]) -> np.ndarray:
        """(hidden,) float32: the mean of the last layer's states, after the final norm."""
        import torch

        with torch.inference_mode():
            cache, total = self.new_cache(), 0.0
            for start, stop in self._chunks(0, len(ids)):
                outputs = self._outputs(ids[start:stop], start, cache, output_hidden_states=True, **self._keep)
                total = total + outputs.hidden_states[-1][0].float().sum(dim=0)
            return self._numpy(total / len(ids))

    def forget(self) -> None:
        """Drop what the last call evaluated: the model computes something else from now on."""
        self._scratch = ([], None)

    def free_memory(self) -> None:
        """Give unused device memory back."""
        import torch

        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def close(self) -> None:
        """Let the weights go; no forward pass after it."""
        self.model = None
        self._scratch = ([], None)
        self.free_memory()

    def _outputs(self, ids: Sequence[int], n_held: int, cache: Any, **asked: Any) -> Any:
        """The model's outputs for these ids, tensors on the device; called within inference mode."""
        if self._takes_positions:
            # Some hybrid models (Bamba) compute wrong ones from a cache whose first layer is recurrent.
            asked["position_ids"] = self._tensor(range(n_held, n_held + len(ids)))
        return self.model(input_ids=self._tensor(ids), past_key_values=cache, use_cache=True, **asked)

    def _rows(self, ids: Sequence[int], start: int) -> Any:
        """The logits from `start` on; what the last call evaluated of the same text is not evaluated again."""
        import torch

        with torch.inference_mode():
            return torch.cat(self._row_parts(ids, start))

    def _row_parts(self, ids: Sequence[int], start: int) -> list[Any]:
        held, cache = self._scratch
        n_held = min(common_prefix(held, ids), start)
        self._scratch = ([], None)
        if cache is None or n_held == 0 or not cut(cache, len(held), n_held):
            cache, n_held = self.new_cache(), 0
        if not self.takes_chunks:
            cache, n_held = self.new_cache(), 0
        parts = []
        for begin, end in self._chunks(n_held, len(ids)):
            logits = self._outputs(ids[begin:end], begin, cache, **({} if end > start else self._keep)).logits
            if end > start:
                parts.append(logits[0, max(start - begin, 0):])
        self._scratch = (list(ids), cache)
        return parts

    def _chunks(self, start: int, stop: int) -> list[tuple[int, int]]:
        size = CHUNK if self.takes_chunks else max(stop - start, 1)
        return [(begin, min(begin + size, stop)) for begin in range(start, stop, size)]

    def _chunks_agree(self) -> bool:
        """Whether a text evaluated in two parts gives what it gives in one: some recurrent layers begin anew with each part."""
        ids = list(range(1, PROBE_TOKENS + 1))
        whole = self.last_row(ids, 0, self.new_cache())
        cache = self.new_cache()
        self.last_row(ids[:7], 0, cache)
        return bool(abs(whole - self.last_row(ids[7:], 7, cache)).max() < 1e-3 * max(1.0, float(abs(whole).max())))

    def _tensor(self, ids: Sequence[int]) -> Any:
        import torch

        return torch.tensor([list(ids)], device=self.device)

    def _numpy(self, tensor: Any) -> np.ndarray:
        """On the CPU as float32; always a copy, since samplers write into it."""
        import torch

        found: np.ndarray = tensor.detach().to("cpu", torch.float32, copy=True).numpy()
        return found
