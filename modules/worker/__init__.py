"""A loaded model in a process of its own: the child, its parent's side, and what travels between them."""
