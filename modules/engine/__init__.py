"""The engine owns the loaded models and turns a request into a run: a stream of events with an id."""

from .engine import Engine
from .models import QUANTIZATION, UNQUANTIZED, Held, LoadState
from .run import Run

__all__ = ["QUANTIZATION", "UNQUANTIZED", "Engine", "Held", "LoadState", "Run"]
