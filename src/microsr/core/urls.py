"""Addresses of inputs that are read from a server, slice by slice, rather than from a disk."""

from __future__ import annotations

import re
from pathlib import Path


def url(path: str | Path) -> str | None:
    """The URL (http or https) that `path` is; None if it is the path of a file or folder.

    A URL that went through `Path`, which makes one slash of two, is a URL still.
    """
    found = re.fullmatch(r"(https?):/+(.+)", str(path), re.IGNORECASE)
    return f"{found[1].lower()}://{found[2].rstrip('/')}" if found else None
