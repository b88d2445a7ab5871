"""Where patches and metrics of a scan come from: in a lung or a specimen, by a range of values, or given as a file."""
