"""File formats in a module of their own that are read and not written, each with the `read` of a
`microsr.formats.further.Format`. The ending of a file is a dot and the name.

They stand apart from `core.registry.formats`, so that a step that writes alone does not have their code in its version.
"""

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
