"""The project's own starter model: corpus, tokenizer, training and evaluation; imported by nothing else."""
