"""Small sound inputs of every kind, written without microsr: {name of a file: its content}, and which of them is read.

Every header has the word SENTINEL wherever a text may stand, so that it is seen if a text comes through.
"""

import functools
import gzip
import io
import json
import lzma
import struct
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import tifffile
from compound import compound
from PIL import Image, PngImagePlugin
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian

SENTINEL = "SENTINEL"
SPACING, ORIGIN = (0.5, 0.6, 1.5), (-10.0, 20.0, 3.0)
ANGLE = np.radians(20)
DIRECTION = np.array([[np.cos(ANGLE), -np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, 1]])
SHEET_SPACING = "0.1x0.1x0.2"
"""Of TIFF and PNG, which have none."""


def values(dtype: str = "int16") -> np.ndarray:
    """Voxels [4, 5, 6], all different."""
    return (np.random.default_rng(0).permutation(120).reshape(4, 5, 6) + 10).astype(dtype)


def affine() -> np.ndarray:
    """From voxel (x, y, z) to LPS, mm."""
    found = np.eye(4)
    found[:3, :3], found[:3, 3] = DIRECTION * SPACING, ORIGIN
    return found


def nifti(dtype: str = "<i2", scale: tuple[float, float] | None = None, unit: str = "mm", sform: int = 1) -> bytes:
    """A NIfTI file."""
    header = nibabel.Nifti1Header(endianness=dtype[0])
    header.set_data_dtype(dtype)
    ras = np.diag([-1, -1, 1, 1]) @ affine()
    image = nibabel.Nifti1Image(values().T.astype(dtype), ras, header, dtype=np.dtype(dtype))
    image.set_sform(ras, sform)
    image.set_qform(ras, 1)
    image.header.set_xyzt_units(unit)
    for field in ("descrip", "aux_file", "db_name", "intent_name"):
        image.header[field] = SENTINEL
    content = bytearray(image.to_bytes())
    if scale:
        content[112:120] = np.array(scale, dtype[0] + "f4").tobytes()
    return bytes(content)


def nrrd_files(
    encoding: str = "raw", space: str = "left-posterior-superior", detached: bool = False
) -> dict[str, bytes]:
    """An NRRD file, or a header and its voxels."""
    flip = np.diag([-1, -1, 1]) if space.startswith("right-anterior") else np.eye(3)
    axes, origin = (flip @ affine()[:3, :3]).T, flip @ ORIGIN
    lines = [
        "NRRD0004", f"# {SENTINEL}", "type: int16", "dimension: 3", f"space: {space}", "sizes: 6 5 4",
        "space directions: " + " ".join(f"({','.join(map(repr, map(float, axis)))})" for axis in axes),
        "kinds: domain domain domain", "endian: little", f"encoding: {encoding}",
        f"space origin: ({','.join(map(repr, map(float, origin)))})",
    ]  # fmt: skip
    lines += ["data file: a.raw"] * detached + [f"patient:={SENTINEL}"]
    raw = values("<i2").tobytes()
    packed = {
        "gzip": lambda: gzip.compress(raw, mtime=0),
        "ascii": lambda: " ".join(map(str, values().ravel())).encode(),
    }
    content = packed.get(encoding, lambda: raw)()
    head = ("\n".join(lines) + "\n\n").encode()
    return {"a.nhdr": head, "a.raw": content} if detached else {"a.nrrd": head + content}


def meta_files(packed: bool = False, msb: bool = False, detached: bool = False) -> dict[str, bytes]:
    """A MetaImage file, or a header and its voxels."""
    raw = values(">i2" if msb else "<i2").tobytes()
    content = zlib.compress(raw) if packed else raw
    lines = [
        "ObjectType = Image", f"Comment = {SENTINEL}", "NDims = 3", "BinaryData = True",
        f"BinaryDataByteOrderMSB = {msb}", f"CompressedData = {packed}",
        *([f"CompressedDataSize = {len(content)}"] * packed),
        "TransformMatrix = " + " ".join(map(repr, map(float, DIRECTION.T.ravel()))),
        "Offset = " + " ".join(map(str, ORIGIN)), "ElementSpacing = " + " ".join(map(str, SPACING)), "DimSize = 6 5 4",
        f"Name = {SENTINEL}", "ElementType = MET_SHORT", f"ElementDataFile = {'a.raw' if detached else 'LOCAL'}",
    ]  # fmt: skip
    head = ("\n".join(lines) + "\n").encode()
    return {"a.mhd": head, "a.raw": content} if detached else {"a.mha": head + content}


def tiff(dtype: str = "<u2", pages: int = 4, **how) -> bytes:
    """A TIFF file."""
    stream = io.BytesIO()
    array = values(dtype)[:pages]
    said = (
        {"metadata": {"axes": "ZYX", "Info": SENTINEL}}
        if "imagej" in how
        else {"metadata": None, "description": SENTINEL}
    )
    tifffile.imwrite(
        stream, array if pages > 1 else array[0], byteorder=dtype[0] if dtype[0] in "<>" else "<",
        photometric="minisblack", software=SENTINEL, **said, **how,
    )  # fmt: skip
    return stream.getvalue()


def txm() -> bytes:
    """Slices in an OLE container."""
    said = {"ImageWidth": 6, "ImageHeight": 5, "NoOfImages": 4, "DataType": 5}
    streams = {f"ImageInfo/{name}": struct.pack("<I", number) for name, number in said.items()}
    streams |= {"ImageInfo/PixelSize": struct.pack("<f", 500), "SampleInfo/SampleID": SENTINEL.encode()}
    return compound(streams | {f"ImageData1/Image{z + 1}": image.tobytes() for z, image in enumerate(values("<u2"))})


def hdf5(**how) -> bytes:
    """A volume with its size, by h5py."""
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        array = file.create_dataset("v", data=values(), **how)
        array.attrs.update(element_size_um=[1000 * v for v in SCALE], title=SENTINEL)
    return stream.getvalue()


def isq() -> bytes:
    """A file of Scanco's, byte by byte."""
    head = bytearray(1024)
    lengths = [round(1000 * n * s) for n, s in zip((6, 5, 4), SPACING, strict=True)]
    struct.pack_into("<16s7i6i", head, 0, b"CTDATA-HEADER_V1", 3, 240, 1, 7, 9, 0, 0, 6, 5, 4, *lengths)
    struct.pack_into("<40s", head, 128, SENTINEL.encode())
    struct.pack_into("<i", head, 508, 1)
    return bytes(head) + values("<i2").tobytes()


def aim() -> bytes:
    """An AIM, version 030, byte by byte."""
    log = f"! {SENTINEL}\n\0".encode()
    facts = struct.pack("<4i6q", 24, 0, 0, 0x20002, 3, 4, 5, 6, 5, 4) + bytes(5 * 24)
    facts += struct.pack("<3q", *(round(1e6 * s) for s in SPACING))
    facts = facts.ljust(224, b"\0")
    return b"AIMDATA_V030   \0" + struct.pack("<5q", 40, 224, len(log), 240, 0) + facts + log + values("<i2").tobytes()


def raw_files() -> dict[str, bytes]:
    """Voxels with a header of the user's."""
    text = f"# {SENTINEL}\ndtype: int16\nsize: [6, 5, 4]\nspacing: [0.5, 0.6, 1.5]\noffset: 0\norder: little\n"
    return {"a.raw": values("<i2").tobytes(), "a.raw.yaml": text.encode()}


def vgi_files() -> dict[str, bytes]:
    """Voxels with a .vgi."""
    text = f"""{{volume1}}
[file1]
FileFormat = raw
Size = 6 5 4
Name = a.vol
Datatype = integer
BitsPerElement = 16
[geometry]
resolution = 0.5 0.6 1.5
unit = mm
comment = {SENTINEL}
"""
    return {"a.vgi": text.encode(), "a.vol": values("<i2").tobytes()}


def image_files(kind: str, ending: str, dtype: str = "uint8") -> dict[str, bytes]:
    """Slices as images, by Pillow."""
    files = {}
    for z, image in enumerate(values(dtype)):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, kind)
        files[f"v{z:04}.{ending}"] = stream.getvalue()
    return files


def png(dtype: str = "uint8") -> bytes:
    """A PNG file."""
    stream, text = io.BytesIO(), PngImagePlugin.PngInfo()
    text.add_text("Comment", SENTINEL)
    Image.fromarray(values(dtype)[0]).save(stream, "PNG", pnginfo=text)
    return stream.getvalue()


SCALE = (1.5, 0.6, 0.5)
"""Of a store without a direction: z, y, x, mm."""
SHIFT = (3.0, 20.0, -10.0)


def ome_zarr_files(folder: Path, version: str = "0.5", chunks: tuple[int, ...] = (2, 5, 6), **how) -> dict[str, bytes]:
    """An OME-Zarr store in micrometres, by zarr."""
    import zarr

    path = folder / f"seed{len(list(folder.iterdir()))}"
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    steps = [
        {"type": kind, kind: [1000 * v for v in numbers]}
        for kind, numbers in (("scale", SCALE), ("translation", SHIFT))
    ]
    said = {"name": SENTINEL, "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}
    group = zarr.create_group(str(path), zarr_format=3 if version == "0.5" else 2)
    group.attrs.update(
        {"ome": {"version": version, "multiscales": [said]}}
        if version == "0.5"
        else {"multiscales": [{"version": version, **said}]}
    )
    group.create_array("0", data=values(), chunks=chunks, **how)
    return {f"v.zarr/{p.relative_to(path)}": p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def n5_files(packed: str) -> dict[str, bytes]:
    """An N5 store in micrometres; byte by byte, as tensorstore cannot be forked once it has written."""
    pack = {"raw": bytes, "gzip": lambda content: gzip.compress(content, mtime=0), "xz": lzma.compress}[packed]
    said = {
        "dimensions": (6, 5, 4), "blockSize": (6, 5, 2), "dataType": "int16", "compression": {"type": packed},
        "name": SENTINEL, "pixelResolution": {"unit": "um", "dimensions": [1000 * v for v in SCALE[::-1]]},
    }  # fmt: skip
    head = struct.pack(">2H3I", 0, 3, 6, 5, 2)
    blocks = {f"v.n5/s0/0/0/{n}": head + pack(values(">i2")[2 * n : 2 * n + 2].tobytes()) for n in range(2)}
    return {"v.n5/attributes.json": b'{"n5": "2.0.0"}', "v.n5/s0/attributes.json": json.dumps(said).encode(), **blocks}


TEXTS = (
    "PatientName", "PatientID", "InstitutionName", "ReferringPhysicianName", "AccessionNumber", "StudyID",
    "StudyDescription", "SeriesDescription", "OperatorsName", "DeviceSerialNumber", "StationName", "PatientComments",
    "ImageComments", "ProtocolName", "ConvolutionKernel", "Manufacturer", "BodyPartExamined",
)  # fmt: skip
UID = "1.2.826.0.1.3680043.2.7"


def dicom_slice(
    z: int, syntax: str = ExplicitVRLittleEndian, rescale: tuple[str, str] = ("2", "-99"), **changed
) -> bytes:
    """A slice of a DICOM series."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, f"{UID}.{z + 1}"
    meta.TransferSyntaxUID, meta.ImplementationClassUID = ExplicitVRLittleEndian, UID
    meta.SourceApplicationEntityTitle = SENTINEL
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.is_little_endian, data.is_implicit_VR = True, syntax == ImplicitVRLittleEndian
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if data.is_implicit_VR else ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = CTImageStorage, f"{UID}.{z + 1}", "CT"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = f"{UID}.91", f"{UID}.92", f"{UID}.93"
    for keyword in TEXTS:
        setattr(data, keyword, SENTINEL)
    data.PatientBirthDate, data.StudyDate, data.ImageType = "19010203", "20010203", ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.SliceThickness, data.KVP, data.InstanceNumber, data.PixelPaddingValue = 1.25, 120, z + 1, 0
    data.ImageOrientationPatient = [f"{v:.10f}" for v in (*DIRECTION[:, 0], *DIRECTION[:, 1])]
    data.ImagePositionPatient = [f"{v:.6f}" for v in (affine() @ (0, 0, z, 1))[:3]]
    data.PixelSpacing = [SPACING[1], SPACING[0]]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns, data.BitsAllocated, data.BitsStored, data.HighBit = 5, 6, 16, 16, 15
    data.PixelRepresentation = 1
    data.RescaleSlope, data.RescaleIntercept = rescale
    data.private_block(0x0029, SENTINEL, create=True).add_new(1, "LO", SENTINEL)
    for keyword, value in changed.items():
        setattr(data, keyword, value)
    data.PixelData = values("<i2")[z].tobytes()
    data["PixelData"].VR = "OW"
    stream = io.BytesIO()
    data.save_as(stream, write_like_original=False)
    return stream.getvalue()


def enhanced(order: tuple[int, ...]) -> bytes:
    """An enhanced CT, with its frames in this order, by pydicom."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    data.is_little_endian, data.is_implicit_VR = True, False
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = meta.MediaStorageSOPClassUID, "1.2.3", "CT"
    for keyword in TEXTS:
        setattr(data, keyword, SENTINEL)
    data.SamplesPerPixel, data.PhotometricInterpretation, data.NumberOfFrames = 1, "MONOCHROME2", 4
    data.Rows, data.Columns, data.BitsAllocated, data.BitsStored, data.HighBit = 5, 6, 16, 16, 15
    data.PixelRepresentation = 1

    def item(**said) -> Dataset:
        found = Dataset()
        for key, value in said.items():
            setattr(found, key, value)
        return found

    axes = [round(float(v), 6) for v in DIRECTION.T[:2].ravel()]
    shared = item(PlaneOrientationSequence=[item(ImageOrientationPatient=axes)])
    shared.PixelMeasuresSequence = [item(PixelSpacing=[SPACING[1], SPACING[0]], SliceThickness=SPACING[2])]
    data.SharedFunctionalGroupsSequence = [shared]
    data.PerFrameFunctionalGroupsSequence = [
        item(
            PlanePositionSequence=[item(ImagePositionPatient=[*ORIGIN[:2], ORIGIN[2] + SPACING[2] * z])],
            PixelValueTransformationSequence=[item(RescaleSlope=1, RescaleIntercept=-3)],
        )
        for z in order
    ]
    data.PixelData = values("<i2")[list(order)].tobytes()
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, data, write_like_original=False)
    return stream.getvalue()


def series(**how) -> dict[str, bytes]:
    """A DICOM series, whose files are in no order."""
    return {f"{(7 * z) % 4}.dcm": dicom_slice(z, **how) for z in range(4)}


CONFIG = Path(__file__).parents[2] / "config.yaml"
SHEET = (
    "case\tsplit\tclinical\tclinical_slices\tmicro\tmicro_spacing\tclinical_series\n# a remark\n"
    'one\ttrain\ta.nii\t1:3\tb c.tif\t0.1x0.1x0.2\t1.2.3\ntwo\ttest\t"q ""x"".nii"\t\t\t\t\r\nthree\ttrain\tü.nii\t:2\n'
)
SCANS = ("a.nii", "b c.tif", 'q "x".nii', "ü.nii")
"""Files that the sheet names."""


def zarr_files(folder: Path) -> dict[str, bytes]:
    """The files of a volume in the working format, written by microsr itself as nothing else knows it."""
    from microsr.volume.storage import Volume, write_volume

    volume = Volume(
        values(),
        SPACING,
        ORIGIN,
        tuple(map(float, DIRECTION.ravel())),
        attributes={"case": "a", "slices": [3, 4, 5, 6]},
    )
    write_volume(folder / "v.ome.zarr", volume, values() % 3 == 0)
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted((folder / "v.ome.zarr").rglob("*")) if p.is_file()
    }


FACTS = {
    "network": "compact", "window_hu": [-1000.0, 400.0], "seed": 7, "steps": 12, "clinical_spacing_mm": 0.625,
    "micro_spacing_mm": None, "provenance": {"inputs": [["a/clinical.npy", "0" * 64]], "settings": {"epochs": 2}},
}  # fmt: skip


def model_files(folder: Path) -> dict[str, bytes]:
    """A model file, written by microsr."""
    import torch

    from microsr.networks.families import build_g1
    from microsr.networks.model_file import save_generator

    torch.manual_seed(0)
    save_generator(folder / "generator.pt", build_g1("compact", 8), FACTS)
    return {"generator.pt": (folder / "generator.pt").read_bytes()}


def patch_files() -> dict[str, bytes]:
    """Patches, their index and how they were made, as `microsr patches` leaves them."""
    stream = io.BytesIO()
    np.save(stream, np.random.default_rng(0).integers(-1000, 0, (6, 8, 8)).astype(np.int16))
    rows = [f"a,clinical,{z},{2 * z},{3 * z},8" for z in range(6)]
    run = {
        "step": "patches", "settings": {"per_case": 6}, "inputs": {"a.ome.zarr": "0"}, "code": {"microsr": "0.1.0"},
        "started": "2001-02-03T04:05:06Z", "seconds": 0.1, "spacing_mm": [0.5, 0.6],
    }  # fmt: skip
    return {
        "clinical.npy": stream.getvalue(),
        "clinical.csv": ("\n".join(["case,modality,slice,row,column,size", *rows]) + "\n").encode(),
        "clinical.run.json": json.dumps(run, indent=1).encode(),
    }


@functools.cache
def seeds(kind: str, folder: Path) -> list[tuple[str, dict[str, bytes]]]:
    """Sound inputs of a kind: the file or folder to read, and all files. folder: an empty one, for what only microsr
    writes.
    """
    if kind == "nifti":
        ways = [{}, {"dtype": ">i2"}, {"dtype": "<f4"}, {"scale": (2, -99)}, {"unit": "micron"}, {"sform": 0}]
        return [("a.nii", {"a.nii": nifti(**way)}) for way in ways]
    if kind == "nifti.gz":
        return [("a.nii.gz", {"a.nii.gz": gzip.compress(nifti(**way), mtime=0)}) for way in ({}, {"scale": (0.5, 1)})]
    if kind == "nrrd":
        ways = [
            {},
            {"encoding": "gzip"},
            {"space": "right-anterior-superior"},
            {"detached": True},
            {"encoding": "ascii"},
        ]
        return [(next(iter(files)), files) for files in (nrrd_files(**way) for way in ways)]
    if kind == "metaimage":
        ways = [{}, {"packed": True}, {"msb": True}, {"detached": True}]
        return [(next(iter(files)), files) for files in (meta_files(**way) for way in ways)]
    if kind == "tiff":
        ways = [
            {},
            {"dtype": "|u1"},
            {"dtype": ">i2"},
            {"compression": "zlib"},
            {"rowsperstrip": 2},
            {"pages": 1},
            {"dtype": "<f4"},
            {"dtype": "<f8"},
            {"tile": (16, 16), "compression": "zstd"},
            {"compression": "lzma"},
            {"imagej": True},
        ]
        return [("a.tif", {"a.tif": tiff(**way)}) for way in ways]
    if kind == "hdf5":
        return [("a.h5", {"a.h5": hdf5(**way)}) for way in ({}, {"chunks": (2, 5, 6), "compression": "gzip"})]
    if kind == "txm":
        return [("a.txm", {"a.txm": txm()})]
    if kind == "scanco":
        return [("a.isq", {"a.isq": isq()}), ("a.aim", {"a.aim": aim()})]
    if kind == "raw":
        return [("a.raw", raw_files()), ("a.vgi", vgi_files())]
    if kind == "bmp":
        log = f"[System]\nOperator={SENTINEL}\n[Reconstruction]\nPixel Size (um)=100.0\nSection to Section Step=2\n"
        return [("", image_files("BMP", "bmp") | {"v.log": log.encode()})]
    if kind == "jpeg2000":
        return [("", image_files("JPEG2000", "jp2", dtype)) for dtype in ("uint8", "uint16")]
    if kind == "png":
        return [("a.png", {"a.png": png(dtype)}) for dtype in ("uint8", "uint16")]
    if kind == "dicom":
        ways = [{}, {"syntax": ImplicitVRLittleEndian}, {"rescale": ("0.5", "3")}]
        return [("a.dcm", {"a.dcm": dicom_slice(0, **way)}) for way in ways]
    if kind == "enhanced":
        return [("a.dcm", {"a.dcm": enhanced(order)}) for order in ((0, 1, 2, 3), (2, 0, 3, 1))]
    if kind == "series":
        ways = [{}, {"syntax": ImplicitVRLittleEndian}]
        return [("", series(**way)) for way in ways]
    if kind == "zarr":
        ways = [{"version": "0.4"}, {}, {"shards": (4, 5, 6)}, {"compressors": None}]
        return [("v.zarr", ome_zarr_files(folder, **way)) for way in ways]
    if kind == "n5":
        return [("v.n5", n5_files(packed)) for packed in ("raw", "gzip", "xz")]
    if kind == "volume":
        return [("v.ome.zarr", zarr_files(folder))]
    if kind == "config":
        overlays = sorted((CONFIG.parent / "experiments").glob("*.yaml"))
        return [("a.yaml", {"a.yaml": path.read_bytes()}) for path in (CONFIG, *overlays)]
    if kind == "sheet":
        return [("cases.tsv", {"cases.tsv": SHEET.encode()} | dict.fromkeys(SCANS, b""))]
    if kind == "model":
        return [("generator.pt", model_files(folder))]
    if kind == "patches":
        return [("clinical.npy", patch_files())]
    raise ValueError(kind)
