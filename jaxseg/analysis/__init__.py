"""Questions about activations: pure functions of arrays."""
