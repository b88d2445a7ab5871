"""What is measured on data before any training, with a plain warning: nothing is stopped by it."""
