"""Units of length by the names that file formats give them."""

from __future__ import annotations

MILLIMETRES = {
    **dict.fromkeys(("nm", "nanometer", "nanometre", "nanometers"), 1e-6),
    **dict.fromkeys(
        ("um", "\xb5m", "\u03bcm", "\\u00b5m", "micron", "microns", "micrometer", "micrometre", "micrometers"), 1e-3
    ),
    **dict.fromkeys(("mm", "millimeter", "millimetre", "millimeters"), 1.0),
    **dict.fromkeys(("cm", "centimeter", "centimetre", "centimeters"), 10.0),
    **dict.fromkeys(("m", "meter", "metre", "meters"), 1000.0),
}


def in_mm(length: float, unit: str) -> float:
    """A length in mm; NaN if the unit is none of length, or none is given."""
    return float(length) * MILLIMETRES.get(str(unit).strip().lower(), float("nan"))
