"""What two readers of OME-Zarr see of a store that microsr has written: ome-zarr-py, by which napari-ome-zarr reads,
and ngff-zarr, by which ITK's viewers do.

    .venv-validators/bin/python tests/validators/readers.py STORE FOLDER

Prints what they say as JSON, a reader by its name; the voxels of the finest level are in FOLDER as `<reader>.npy`.
"""

import json
import sys
from pathlib import Path

import numpy as np


def by_ome_zarr(store: str) -> dict:
    """By ome-zarr-py: what napari is handed."""
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Reader

    node = next(iter(Reader(parse_url(store))()))
    said = node.metadata
    scale, translation = (list(step.values())[1] for step in said["coordinateTransformations"][0])
    return {
        "voxels": np.asarray(node.data[0]),
        "levels": [list(level.shape) for level in node.data],
        "axes": [axis["name"] for axis in said["axes"]],
        "units": [axis.get("unit") for axis in said["axes"]],
        "scale": scale,
        "translation": translation,
        "names": said.get("channel_names"),
        "windows": said.get("contrast_limits"),
        "visible": said.get("visible"),
    }


def by_ngff_zarr(store: str) -> dict:
    """By ngff-zarr."""
    import ngff_zarr

    scales = ngff_zarr.from_ngff_zarr(store)
    image, omero = scales.images[0], scales.metadata.omero
    return {
        "voxels": np.asarray(image.data),
        "levels": [list(level.data.shape) for level in scales.images],
        "axes": list(image.dims),
        "units": [image.axes_units.get(name) for name in image.dims],
        "scale": [image.scale.get(name, 1.0) for name in image.dims],
        "translation": [image.translation.get(name, 0.0) for name in image.dims],
        "names": omero and [channel.label for channel in omero.channels],
        "windows": omero and [[channel.window.start, channel.window.end] for channel in omero.channels],
    }


def main(store: str, folder: str) -> None:
    """Read a store by both."""
    found = {"ome-zarr-py": by_ome_zarr(store), "ngff-zarr": by_ngff_zarr(store)}
    for reader, said in found.items():
        np.save(Path(folder) / f"{reader}.npy", said.pop("voxels"))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
