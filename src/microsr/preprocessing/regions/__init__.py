"""Masks of what is no lung and no inflated specimen: by a range of values, or given as a file."""
