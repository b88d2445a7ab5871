"""Metrics: what they are, and the tidy tables that hold them."""
