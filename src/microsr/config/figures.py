"""Section `figures`: what is drawn, and how."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from microsr.config.section import Section


class Inset(Section):
    """A zoomed region of the comparison figure."""

    row: Annotated[int, Field(ge=0)]
    """First row, clinical pixels."""
    column: Annotated[int, Field(ge=0)]
    """First column, clinical pixels."""
    size: Annotated[int, Field(ge=4)] = 24
    """Side, clinical pixels."""


class Figures(Section):
    """The paper's figures."""

    slice: Annotated[int, Field(ge=0)] | None = None
    """Slice of the comparison figure (a super-resolved one); null: the one with most lung."""
    insets: list[Inset] = []
    """Zoomed regions; empty: two are chosen inside the lung, where the input has most structure."""
    display_window_hu: tuple[float, float] = (-1000.0, 200.0)
    """Grey scale of every panel: HU shown black and HU shown white."""
