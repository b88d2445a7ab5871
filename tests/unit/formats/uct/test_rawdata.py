"""Voxels with Nikon's .vgi or a header of the user's beside."""

import numpy as np
import pytest
import yaml
from reading import read

from microsr.core.errors import UserError

VGI = """{{volume1}}
[representation]
size = 6 5 4
datatype = {kind}
bitsperelement = {bits}
[file1]
RegionOfInterestStart = 0 0 0
RegionOfInterestEnd = 5 4 3
FileFormat = raw
Size = 6 5 4
Name = {name}
Datatype = {kind}
datarange = {{ 0 -1 }}
BitsPerElement = {bits}
SkipHeader = {skip}
{{volumeprimitive12}}
[geometry]
resolution = 0.05 0.06 0.07
unit = mm
"""


@pytest.fixture
def values():
    return np.random.default_rng(0).integers(0, 60000, (4, 5, 6)).astype(np.uint16)


def refused(match, path, **scan):
    with pytest.raises(UserError, match=match) as error:
        np.asarray(read(path, **scan).array)
    assert "\n" not in str(error.value) and path.parent.name in str(error.value)


def raw(folder, values, name="a.raw", before=b"", **said):
    path = folder / name
    path.write_bytes(before + values.tobytes())
    said = {"dtype": values.dtype.name, "size": [6, 5, 4], "spacing": [0.05, 0.06, 0.07], **said}
    path.with_name(f"{name}.yaml").write_text(yaml.safe_dump({k: v for k, v in said.items() if v is not None}))
    return path


def vgi(folder, values, kind="unsigned integer", bits=16, name="a.vol", skip=0, text=VGI):
    (folder / "a.vol").write_bytes(bytes(skip) + values.tobytes())
    path = folder / "a.vgi"
    path.write_text(text.format(kind=kind, bits=bits, name=name, skip=skip))
    return path


@pytest.mark.parametrize("dtype", ["uint8", "int16", ">u2", "float32", ">f8"])
@pytest.mark.parametrize("name", ["a.raw", "a.vol"])
def test_a_header_of_the_users(tmp_path, values, dtype, name):
    stored = (values % 200).astype(dtype)
    order = "big" if dtype.startswith(">") else "little"
    path = raw(tmp_path, stored, name, b"123", offset=3, order=order)
    volume = read(path, slices="1:3")
    assert np.array_equal(volume.array, stored[1:3]) and volume.spacing == (0.05, 0.06, 0.07)
    assert volume.origin == pytest.approx((0, 0, 0.07)) and volume.attributes["source"]["format"] == "raw"
    assert read(path, spacing="0.1x0.2x0.3").spacing == (0.1, 0.2, 0.3)


def test_without_a_header_the_message_says_what_to_write(tmp_path, values):
    path = tmp_path / "a.raw"
    path.write_bytes(values.tobytes())
    with pytest.raises(UserError, match=r"has no header; write a\.raw\.yaml beside it, as `") as error:
        read(path)
    said = str(error.value).split("`")[1].replace("512, 512, 300", "6, 5, 4")
    (tmp_path / "a.raw.yaml").write_text(said)
    volume = read(path)
    assert np.array_equal(volume.array, values) and volume.spacing == (0.01, 0.01, 0.01), "as the message advises"


@pytest.mark.parametrize(
    ("said", "match"),
    [
        (
            {"dtype": "uint7"},
            "dtype: is missing, unknown or of another kind; it may say dtype, size, spacing, offset, order",
        ),
        ({"size": [6, 5]}, "size: is missing, unknown"),
        ({"size": [6, 5, 0]}, "size.2: is missing, unknown"),
        ({"byteorder": "big"}, "byteorder: is missing, unknown"),
        ({"spacing": [0.0, 1.0, 1.0]}, "has no voxel spacing, or an impossible one"),
        ({"spacing": None}, "has no voxel spacing"),
        ({"size": [6, 5, 3]}, "is damaged or truncated \\(180 bytes expected, 240 found\\)"),
        ({"offset": 3}, "is damaged or truncated \\(243 bytes expected, 240 found\\)"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path, values, said, match):
    refused(match, raw(tmp_path, values, **said))


def test_a_header_that_is_no_yaml_is_refused(tmp_path, values):
    path = raw(tmp_path, values)
    (tmp_path / "a.raw.yaml").write_text("dtype: [")
    refused("it is no YAML", path)


@pytest.mark.parametrize(
    ("dtype", "kind", "bits"), [("u2", "unsigned integer", 16), ("u1", "unsigned integer", 8), ("f4", "float", 32)]
)
def test_a_vgi_is_read(tmp_path, values, dtype, kind, bits):
    stored = (values % 200).astype(dtype)
    path = vgi(tmp_path, stored, kind, bits, skip=8)
    for given in (path, tmp_path / "a.vol"):
        volume = read(given)
        assert np.array_equal(volume.array, stored) and volume.spacing == (0.05, 0.06, 0.07)
        assert volume.attributes["source"]["format"] == "VGI"


def test_a_vgi_finds_its_file_whatever_the_path_of_another_machine(tmp_path, values):
    assert np.array_equal(read(vgi(tmp_path, values, name=r"D:\\scans\\a.vol")).array, values)


def test_a_vgi_that_is_not_certain_is_refused(tmp_path, values):
    refused("its file of voxels is not beside it", vgi(tmp_path, values, name="gone.vol"))
    refused("its size, type or file is not as Volume Graphics has them", vgi(tmp_path, values, bits=12))
    refused("describes 0 files of voxels, not one", vgi(tmp_path, values, text=VGI.replace("[file1]", "[other]")))
    refused("describes 2 files", vgi(tmp_path, values, text=VGI + "[file2]\nName = b.vol\n"))
    refused("has no voxel spacing", vgi(tmp_path, values, text=VGI.replace("unit = mm", "")))
    assert read(vgi(tmp_path, values, text=VGI.replace("unit = mm", "unit = um"))).spacing[0] == pytest.approx(5e-5)
    path = vgi(tmp_path, values)
    (tmp_path / "a.vol").write_bytes(values.tobytes()[:-1])
    refused("is damaged or truncated \\(240 bytes expected, 239 found\\)", path)
