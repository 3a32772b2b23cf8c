"""The parts of the GGUF loader: llama.cpp's C API, prefix and cell bookkeeping, sampler chains, text, pace."""
