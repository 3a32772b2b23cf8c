"""The KV cache of one sequence: grows without copying what it holds, and is cut back where its layers really allow it."""

from __future__ import annotations

import functools
from typing import Any

GROWTH = 1.5
FIRST_ROOM = 256


@functools.cache
def growing_layer() -> Any:
    """The layer class; a function, because its base class needs torch."""
    from transformers.cache_utils import DynamicLayer

    class GrowingLayer(DynamicLayer):  # type: ignore[misc]
        """A full-attention layer that writes into spare room.

        Transformers' own concatenates, so that each token copies the whole cache: at 16k tokens as much memory traffic again as
        reading the weights of a small model. `keys` and `values` are views, (1, heads, n, dimension), of the rows in use.
        first_room: rows that are taken at the first token, 0 for as many as are needed and some more.
        """

        first_room = 0

        def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
                self.room: list[Any] = [key_states[..., :0, :], value_states[..., :0, :]]
            n_old = self.get_seq_length()
            n_new = n_old + key_states.shape[-2]
            if n_new > self.room[0].shape[-2]:
                size = max(n_new, self.first_room or max(n_new, int(GROWTH * n_old)) + FIRST_ROOM)
                self.room = [_moved(room, n_old, size) for room in self.room]
            for room, states in zip(self.room, (key_states, value_states), strict=True):
                room[..., n_old:n_new, :] = states
            self.keys, self.values = (room[..., :n_new, :] for room in self.room)
            return self.keys, self.values

    return GrowingLayer


def _moved(room: Any, n_kept: int, size: int) -> Any:
    new = room.new_empty((*room.shape[:-2], size, room.shape[-1]))
    new[..., :n_kept, :] = room[..., :n_kept, :]
    return new


def new_cache(config: Any, room: int = 0) -> Any:
    """An empty cache with the layer kinds that the model's configuration asks for; room: tokens to take memory for at once."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    cache = DynamicCache(config=config)
    cache.layers = [growing_layer()() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    for layer in cache.layers:
        if type(layer) is growing_layer():
            layer.first_room = room
    return cache


def is_plain(cache: Any) -> bool:
    """Whether every layer is attention over keys and values, so that a prompt may be evaluated in chunks."""
    from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

    return all(type(layer) in (growing_layer(), DynamicLayer, DynamicSlidingWindowLayer, DummyLayer) for layer in cache.layers)


def takes_back(cache: Any) -> bool:
    """Whether every layer can always be cut back."""
    return all(type(layer) is growing_layer() for layer in cache.layers)


def cut(cache: Any, n_held: int, n_wanted: int) -> bool:
    """Shorten the cache from n_held tokens to n_wanted; False where it cannot be, and the cache is then of no use.

    A sliding window has forgotten what it would need again, and a recurrent state holds all of the past in one.
    """
    if n_wanted < n_held:
        if not cache.is_croppable:
            return False
        try:
            cache.crop(n_wanted - n_held)
        except RuntimeError:  # a sliding window that is full says so
            return False
    # What a layer says of its length is checked, since a crop that did nothing would give wrong text without an error.
    lengths = {layer.get_seq_length() for layer in cache.layers if getattr(layer, "keys", None) is not None}
    return n_wanted == n_held or lengths <= {n_wanted}


def copy_of(cache: Any, new: Any, n_wanted: int) -> Any | None:
    """The empty cache `new` with the first n_wanted tokens, the old one left as it is; None where its layers hold more than
    keys."""
    if any(type(layer) is not growing_layer() for layer in cache.layers):
        return None
    for old_layer, new_layer in zip(cache.layers, new.layers, strict=True):
        new_layer.update(old_layer.keys[..., :n_wanted, :], old_layer.values[..., :n_wanted, :])
    return new
