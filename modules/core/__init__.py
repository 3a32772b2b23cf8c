"""The nouns of Colloquy: values and protocols that depend on the standard library alone."""
