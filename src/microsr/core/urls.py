"""Addresses of inputs that are read from a server, slice by slice, not from a disk, and what of them was read."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

_READ: dict[str, dict[str, bytes]] = {}
"""Of each address what was read by this process: the name of a file, or of a part of it, and its SHA-256."""


def url(path: str | Path) -> str | None:
    """The URL (http or https) that `path` is; None if it is the path of a file or folder.

    A URL that went through `Path`, which makes one slash of two, is a URL still.
    """
    found = re.fullmatch(r"(https?):/+(.+)", str(path), re.IGNORECASE)
    return f"{found[1].lower()}://{found[2].rstrip('/')}" if found else None


def note_reading(address: str, part: str, content: bytes) -> None:
    """Note that `part` of what lies below `address` was read, and what it held."""
    _READ.setdefault(address, {})[part] = hashlib.sha256(content).digest()


def checksum_of_reading(address: str) -> str:
    """SHA-256 of the names and contents of all that this process has read below `address` so far; "" if nothing was.

    It does not depend on the order, nor on how often a part was read.
    """
    if not (parts := _READ.get(address)):
        return ""
    digest = hashlib.sha256()
    for part, content in sorted(parts.items()):
        digest.update(part.encode() + b"\0" + content)
    return digest.hexdigest()
