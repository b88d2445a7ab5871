"""Figures of numbers: curves, bars, dots and tables."""
