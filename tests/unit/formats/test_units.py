"""Units of length by their names."""

import math

import pytest

from microsr.formats.units import in_mm


@pytest.mark.parametrize(
    ("unit", "length"),
    [("mm", 2.0), ("Millimeter", 2.0), ("um", 0.002), ("\xb5m", 0.002), ("\u03bcm", 0.002), ("micron", 0.002),
     ("nm", 2e-6), ("cm", 20.0), ("m", 2e3)],
)  # fmt: skip
def test_lengths_become_millimetres(unit, length):
    assert in_mm(2, unit) == pytest.approx(length)


@pytest.mark.parametrize("unit", ["", "pixel", "s", "None"])
def test_what_is_no_unit_of_length_gives_no_length(unit):
    assert math.isnan(in_mm(2, unit))
