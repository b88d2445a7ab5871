"""File formats in a module of their own, each a `microsr.formats.further.Format`. The ending of a file is a dot and the
name.

What `formats.readers` and `formats.writers` know themselves is not here: a step that writes alone would have the
readers in its version, and the other way round.
"""

FORMATS: dict[str, str] = {
    # "<ending>": "microsr.formats.<module>:<format>",
}
"""Read, and written where `superresolve.formats` or an output's ending asks for it."""
READ_ONLY: dict[str, str] = {
    "isq": "microsr.formats.uct.scanco:ISQ_FORMAT",
    "aim": "microsr.formats.uct.scanco:AIM_FORMAT",
    "vgi": "microsr.formats.uct.rawdata:VGI",
    "raw": "microsr.formats.uct.rawdata:RAW",
    "vol": "microsr.formats.uct.rawdata:RAW",
    "h5": "microsr.formats.uct.hdf5:FORMAT",
    "hdf5": "microsr.formats.uct.hdf5:FORMAT",
    "hdf": "microsr.formats.uct.hdf5:FORMAT",
    "nxs": "microsr.formats.uct.hdf5:FORMAT",
    "nx": "microsr.formats.uct.hdf5:FORMAT",
    "txm": "microsr.formats.uct.txm:FORMAT",
}
"""Read."""
