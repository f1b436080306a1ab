"""Units of length as headers spell them."""

_IN_MM = {
    1e-6: ("nm", "nanometer", "nanometre"),
    1e-3: ("um", "\N{MICRO SIGN}m", "\N{GREEK SMALL LETTER MU}m", r"\u00b5m", "micron", "micrometer", "micrometre"),
    1.0: ("mm", "millimeter", "millimetre"),
    10.0: ("cm", "centimeter", "centimetre"),
    25.4: ("in", "inch", "inche"),
    1000.0: ("m", "meter", "metre"),
}


def in_mm(unit: str) -> float | None:
    """How many mm a unit has; None for one that is not a length, such as a pixel."""
    name = unit.strip(' \0"').lower()
    return next((length for length, names in _IN_MM.items() if name in names or name.removesuffix("s") in names), None)
