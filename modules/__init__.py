"""Colloquy's own code, in layers; docs/architecture.md says who may import whom."""
