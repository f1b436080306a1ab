"""A config and data to checkpoints."""
