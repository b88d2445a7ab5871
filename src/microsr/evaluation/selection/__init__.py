"""Which settings of a search and which model of a training are chosen, by the validation cases."""
