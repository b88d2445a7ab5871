"""Trained models for other people and programs, with a card that says what they are."""
