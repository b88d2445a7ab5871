"""Scanner, frequencies, tissues, airways, block means and the intensity window: what several steps calculate with."""
