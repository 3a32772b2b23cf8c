"""Parts of the Transformers loader; imported only while it loads or runs a model."""
