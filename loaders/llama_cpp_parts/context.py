"""A llama.cpp context and its one batch: tokens in, logits out, and the KV memory's sequences."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from .library import Library

KV_TYPES = {"f16": 1, "bf16": 30, "q8_0": 8, "q4_0": 2, "f32": 0}  # ggml_type; the library names no BF16
QUANTIZED = ("q8_0", "q4_0")
FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}
ROPE_SCALING = {"auto": -1, "none": 0, "linear": 1, "yarn": 2}
ALIGNMENT = 256  # llama.cpp rounds contexts up to it


@dataclass(frozen=True)
class Settings:
    """context: cells for all sequences together, a multiple of 256. trained: the model's own context. A rope_factor or rope_base
    of 0 is the file's own."""

    context: int
    n_sequences: int
    threads: int
    threads_batch: int
    batch: int
    ubatch: int
    kv_type_k: str
    kv_type_v: str
    flash_attention: str
    full_swa: bool
    rope_scaling: str = "auto"
    rope_factor: float = 0.0
    rope_base: float = 0.0
    trained: int = 0


class Context:
    """One context; on the thread that made it. `begin`, `add`..., `decode`, then read outputs by the index `add` returned."""

    def __init__(self, library: Library, model: Any, settings: Settings) -> None:
        c = self._c = library.c
        wanted = c.llama_context_default_params()
        wanted.n_ctx, wanted.n_batch, wanted.n_ubatch = settings.context, settings.batch, settings.ubatch
        wanted.n_seq_max, wanted.kv_unified = settings.n_sequences, True
        wanted.n_threads, wanted.n_threads_batch = settings.threads, settings.threads_batch
        wanted.flash_attn_type = FLASH_ATTENTION[settings.flash_attention]
        wanted.type_k, wanted.type_v = KV_TYPES[settings.kv_type_k], KV_TYPES[settings.kv_type_v]
        wanted.rope_scaling_type, wanted.rope_freq_base = ROPE_SCALING[settings.rope_scaling], settings.rope_base
        wanted.rope_freq_scale = 1 / settings.rope_factor if settings.rope_factor else 0.0
        wanted.yarn_orig_ctx = settings.trained if settings.rope_scaling == "yarn" else 0
        wanted.swa_full, wanted.no_perf = settings.full_swa, True
        self.handle = c.llama_init_from_model(model, wanted)
        if not self.handle:
            raise library.failure(f"A context of {settings.context} tokens could not be made",
                                  "Leave the KV types at f16 and flash_attention at auto, or choose others.")
        self.memory = c.llama_get_memory(self.handle)
        self.size: int = c.llama_n_ctx(self.handle)
        self.capacity = settings.batch
        self.n_swa = 0 if settings.full_swa else int(c.llama_model_n_swa(model))
        self._n_vocab: int = c.llama_vocab_n_tokens(c.llama_model_get_vocab(model))
        self._n_embd: int = c.llama_model_n_embd(model)
        self.n = 0
        self._make_batch(settings.batch)

    def _make_batch(self, n: int) -> None:
        """Our own arrays behind one llama_batch: filling them costs less than the library's helpers."""
        c = self._c
        self._tokens, self._positions = (c.llama_token * n)(), (c.llama_pos * n)()
        self._seqs, self._outputs = (c.llama_seq_id * n)(), (ctypes.c_int8 * n)()
        self._n_seqs = (ctypes.c_int32 * n)(*([1] * n))
        width = ctypes.sizeof(c.llama_seq_id)
        pointer = ctypes.POINTER(c.llama_seq_id)
        first = ctypes.addressof(self._seqs)
        self._seq_pointers = (pointer * n)(*(ctypes.cast(first + i * width, pointer) for i in range(n)))
        self._batch = c.llama_batch(n_tokens=0, token=self._tokens, embd=None, pos=self._positions, n_seq_id=self._n_seqs,
                                    seq_id=self._seq_pointers, logits=self._outputs)

    def begin(self) -> None:
        self.n = 0

    def add(self, token: int, position: int, seq: int) -> int:
        """One token whose logits are wanted; returns its index in the batch."""
        i = self.n
        self._tokens[i], self._positions[i], self._seqs[i], self._outputs[i] = token, position, seq, 1
        self.n = i + 1
        return i

    def add_chunk(self, ids: Sequence[int], position: int, seq: int, *, outputs: bool = False) -> int:
        """Tokens of a prompt from `position` on, their logits wanted or not; returns the index of the first."""
        i, n = self.n, len(ids)
        stop = i + n
        self._tokens[i:stop] = ids
        self._positions[i:stop] = range(position, position + n)
        self._seqs[i:stop] = [seq] * n
        self._outputs[i:stop] = [int(outputs)] * n
        self.n = stop
        return i

    def decode(self) -> int:
        """llama_decode's own code: 0 done; 1 no room, nothing changed; 2 aborted; below 0 an error. Lets other threads run."""
        self._batch.n_tokens = self.n
        return int(self._c.llama_decode(self.handle, self._batch))

    def logits(self, index: int) -> np.ndarray:
        """(vocab,) float32: a view that the next decode overwrites."""
        import numpy as np
        return np.ctypeslib.as_array(self._c.llama_get_logits_ith(self.handle, index), (self._n_vocab,))

    def embedding(self, index: int) -> np.ndarray:
        """(dimension,) float32: a view that the next decode overwrites; needs `set_embeddings(True)` before the decode."""
        import numpy as np
        return np.ctypeslib.as_array(self._c.llama_get_embeddings_ith(self.handle, index), (self._n_embd,))

    def set_embeddings(self, on: bool) -> None:
        self._c.llama_set_embeddings(self.handle, on)

    def keep(self, seq: int, length: int) -> int:
        """Trim a sequence to `length` tokens; returns what is really left, 0 where the memory cannot trim (cells.Memory)."""
        c, memory = self._c, self.memory
        if length > 0 and c.llama_memory_seq_rm(memory, seq, length, -1) and self._holds(seq, length):
            return length
        c.llama_memory_seq_rm(memory, seq, -1, -1)
        return 0

    def copy(self, source: int, target: int, length: int) -> int:
        """Let an empty sequence share another one's first `length` tokens (cells.Memory)."""
        self._c.llama_memory_seq_cp(self.memory, source, target, 0, length)
        if self._holds(target, length):
            return length
        self._c.llama_memory_seq_rm(self.memory, target, -1, -1)
        return 0

    def state_size(self, seq: int) -> int:
        return int(self._c.llama_state_seq_get_size(self.handle, seq))

    def save(self, seq: int) -> ctypes.Array[ctypes.c_uint8] | None:
        """A sequence's state in our own memory (cells.Memory)."""
        size = self.state_size(seq)
        state = (ctypes.c_uint8 * size)()
        return state if self._c.llama_state_seq_get_data(self.handle, state, size, seq) == size else None

    def restore(self, seq: int, state: Any) -> bool:
        """Put it back into an empty sequence (cells.Memory)."""
        if self._c.llama_state_seq_set_data(self.handle, state, len(state), seq) == len(state):
            return True
        self._c.llama_memory_seq_rm(self.memory, seq, -1, -1)
        return False

    def _holds(self, seq: int, length: int) -> bool:
        """Whether the memory ends at `length` and, with a sliding window, still has the window that ends there."""
        c, memory = self._c, self.memory
        if c.llama_memory_seq_pos_max(memory, seq) != length - 1:
            return False
        return not self.n_swa or c.llama_memory_seq_pos_min(memory, seq) <= max(0, length - self.n_swa)

    def clear(self) -> None:
        self._c.llama_memory_clear(self.memory, True)

    def close(self) -> None:
        """Free the context; a second call does nothing."""
        if self.handle:
            self._c.llama_free(self.handle)
            self.handle = None
