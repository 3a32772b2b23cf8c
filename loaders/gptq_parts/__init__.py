"""Parts of the GPTQ loader."""
