"""Losses of the generators in a module of their own, each a `microsr.training.losses.Loss`; the paper's are in
`training.passes`.
"""

from typing import NamedTuple


class Entry(NamedTuple):
    """A loss: its place, and what `--help` and the documentation say of its weight, which decides no result."""

    place: str
    help: str


LOSSES: dict[str, Entry] = {
    # "<key>": Entry("microsr.training.<module>:<loss>", help="<key>_loss: <meaning>"),
}
"""By the key of its weight in the section `losses`."""
