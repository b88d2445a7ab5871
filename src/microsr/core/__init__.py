"""What everything stands on: errors, whole files, progress, records, versions of code, random streams."""
