"""Lungs that are made up, with their clinical CT and uCT."""
