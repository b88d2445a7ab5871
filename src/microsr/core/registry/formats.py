"""File formats in a module of their own, each a `microsr.formats.further.Format`. The ending of a file is a dot and the
name.

What `formats.readers` and `formats.writers` know themselves is not here: a step that writes alone would have the
readers in its version, and the other way round.
"""

FORMATS: dict[str, str] = {
    # "<ending>": "microsr.formats.<module>:<format>",
}
"""Read, and written where `superresolve.formats` or an output's ending asks for it."""
