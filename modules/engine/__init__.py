"""The engine owns the loaded models and turns a request into a run: a stream of events with an id."""

from .engine import Engine
from .models import Held, LoadState
from .run import Run

__all__ = ["Engine", "Held", "LoadState", "Run"]
