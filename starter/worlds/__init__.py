"""The parts of the small world; each file adds turns of one kind to a chat."""
