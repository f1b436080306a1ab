"""One package per study."""
