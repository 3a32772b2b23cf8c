"""One suite for every loader: what architecture.md promises of `Loader`, kept by each."""
