"""Figures that show slices."""
