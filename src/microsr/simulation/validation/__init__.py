"""The simulated lung and scanner beside the literature."""
