"""Formats of other programs, read and written slice by slice."""
