"""Volumes read as a sheet names them, and what is refused, for the tests of formats."""

import numpy as np
import pytest

from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.formats.readers import read_scan


def read(path, **scan):
    """The volume at `path`, read as a sheet with these columns has it."""
    return read_scan(Scan(path=str(path), **scan))


def refused(match, path, **scan):
    """See that neither header nor voxels are read, with one line that names the file and says why."""
    with pytest.raises(UserError, match=match) as error:
        np.asarray(read(path, **scan).array)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
