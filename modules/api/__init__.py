"""The HTTP API: one file a dialect, each a printer of the engine's events."""
