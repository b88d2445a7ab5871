"""The report, one HTML file, and where results come from."""
