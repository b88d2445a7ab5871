"""What can be added, by its name and the place where it stands: "module:thing", whole, so that nothing is loaded before
it is used.

A file a kind. A step has in its version (`core.code_version`) the registries that it reads, with the code of all that
they name; so a new file format trains nothing again. They stand here, as the settings take their words from them.
docs/extending.md shows one of each kind.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def load_thing(place: str) -> Any:
    """What stands at a place, "module:thing"."""
    module, _, thing = place.partition(":")
    return getattr(import_module(module), thing)
