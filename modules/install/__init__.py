"""What start.py does on a fresh machine; standard library only, because nothing is installed yet."""
