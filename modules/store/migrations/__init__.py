"""The steps from one schema to the next; a file in `versions` is named for its revision: 0001_chats.py, 0002_..."""
