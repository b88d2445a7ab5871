"""Formats of uCT scanners and synchrotrons, read slice by slice; each is registered in `core.registry.formats`."""
