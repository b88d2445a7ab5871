"""Generators and discriminators, their layers, the device they run on and the file a model is in."""
