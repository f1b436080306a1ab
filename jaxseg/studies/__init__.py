"""One module per paper: which runs, which numbers."""
