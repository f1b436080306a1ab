"""Command-line programs."""

import os

# Before NumPy is loaded: its products here are small, and its threads fight with XLA's.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
