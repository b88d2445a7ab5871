"""A specimen's own uCT laid over its clinical CT, by a registration that was made elsewhere."""
