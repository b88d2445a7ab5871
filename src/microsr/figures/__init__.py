"""Figures and typeset tables: a file a figure."""
