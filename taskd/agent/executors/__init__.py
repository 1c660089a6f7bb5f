"""How an attempt is run: one file for each kind of executor."""
