"""The settings of docs/public-data.md, on small stores of the layouts of the public collections, as far as they are
known.
"""

import json
import shlex
import sys
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import tensorstore
import yaml
import zarr
from serving import served
from snakemake.utils import update_config

from microsr import config
from microsr.cli import main
from microsr.config.sheet import read_sheet, with_scans
from microsr.volume.storage import open_volume
from microsr.workflow.plan import Plan

ROOT = Path(__file__).parents[4]
sys.path.insert(0, str(ROOT / "tests" / "docs"))
import pages  # noqa: E402 - of the tests of pages

BUCKET = "https://storage.googleapis.com"
VOXEL_UM = 24.132


def block(language, start):
    """The block of the page that starts so."""
    (text,) = (b.text for b in pages.BLOCKS if (b.page, b.language) == ("public-data.md", language) and start in b.text)
    return text


def specimen(shape):
    """Tissue of 20000 with round air spaces of 8000 in it, uint16."""
    z, y, x = np.indices(shape) / 12
    return (14000 + 6000 * np.sign(np.sin(x) + np.sin(y) + np.sin(z) + 0.5)).astype(np.uint16)


def halve(array):
    return np.ascontiguousarray(array[::2, ::2, ::2])


def hoa_zarr(path, level_0, levels=3):
    """Zarr 2, a group of levels of uint16, cubes packed by Blosc with zstd."""
    group = zarr.create_group(str(path), zarr_format=2)
    datasets, array = [], level_0
    for level in range(levels):
        scale = {"type": "scale", "scale": [VOXEL_UM * 2**level] * 3}
        datasets.append({"path": str(level), "coordinateTransformations": [scale]})
        stored = group.create_array(
            str(level), shape=array.shape, chunks=(32, 32, 32), dtype="u2", fill_value=0,
            compressors=numcodecs.Blosc("zstd", 8, 1), chunk_key_encoding={"name": "v2", "separator": "/"},
        )  # fmt: skip
        stored[:] = array
        array = halve(array)
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]


def hoa_n5(path, level_0, levels=3):
    array = level_0
    for level in range(levels):
        metadata = {"dimensions": array.shape[::-1], "blockSize": [32] * 3, "dataType": "uint16",
                    "compression": {"type": "blosc", "cname": "zstd", "clevel": 6, "shuffle": 1}}  # fmt: skip
        spec = {"driver": "n5", "kvstore": {"driver": "file", "path": f"{path}/s{level}"}, "metadata": metadata}
        tensorstore.open(spec, create=True).result().write(array.T).result()
        array = halve(array)
    (path / "attributes.json").write_text(json.dumps({"n5": "2.0.0"}))


def plan_of(folder, text, sheet):
    """The plan of an experiment of the page with this sheet."""
    (folder / "sheet.tsv").write_text(sheet)
    whole = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    update_config(whole, yaml.safe_load(text))
    whole["cases"] = {"sheet": str(folder / "sheet.tsv"), "data_root": str(folder)}
    experiment = config.load(whole)
    cases = read_sheet(experiment.cases, experiment.scan.micro)
    cases = with_scans(cases, f"results/{experiment.experiment}/scanned") if experiment.scan.micro else cases
    return Plan(experiment, {case.case: case for case in cases})


@pytest.mark.parametrize("layout", ["zarr", "n5"])
def test_the_experiment_on_the_human_organ_atlas_imports_a_region_of_a_level_by_url(tmp_path, layout):
    sheet, place = block("tsv", "A186"), "ucl-hip-ct-35a68e99feaae8932b1d44da0358940b/A186/lung-right"
    name = "24.132um_complete-organ_bm18.ome.zarr"
    store, values = tmp_path / place / name, specimen((128, 120, 136))
    assert f"{BUCKET}/{place}/{name}" in sheet
    store.parent.mkdir(parents=True)
    (hoa_zarr if layout == "zarr" else hoa_n5)(store, values)
    for file in ("p02/chest.nii.gz", "p03/dicom"):
        (tmp_path / file).mkdir(parents=True)
    with served(tmp_path) as (address, asked):
        sheet = sheet.replace(BUCKET, address).replace("2000:2500", "8:56").replace("1500:2500,1500:2500", "4:52,8:60")
        if layout == "n5":  # their metadata are not known: the sheet gives the size
            sheet = sheet.replace("micro_level", "micro_spacing\tmicro_level").replace(
                "\t1\t8:56", "\t0.048264x0.048264x0.048264\t1\t8:56"
            )
        plan = plan_of(tmp_path, block("yaml", "experiment: hipct"), sheet)
        words = f"{plan.scan_flags('lung-right', 'micro')} {config.flags(plan.experiment.volumes.micro)}"
        output = str(tmp_path / "out.ome.zarr")
        main(["volumes", "micro", "--case", "a", "--output", output, *shlex.split(words)])
    fetched = [path for path in asked if path[-1].isdigit()]
    assert len(fetched) == 2 * 2 * 2, "the blocks of level 1 that hold the region, and no others"
    found = open_volume(tmp_path / "out.ome.zarr")
    assert found.spacing == pytest.approx((0.078,) * 3) and found.shape == (29, 29, 32)
    taken = halve(values)[8:56, 4:52, 8:60]
    assert np.mean(found.array[:] > found.array[:].mean()) == pytest.approx(np.mean(taken > 14000), abs=0.12)


def test_the_experiment_on_femora_scans_the_high_resolution_by_the_simulated_scanner(tmp_path, monkeypatch):
    """Of each sample HR, LR and REG; the sheet takes HR."""
    monkeypatch.chdir(tmp_path)
    sheet = block("tsv", "femur-74")
    values = (9000 + 2 * (specimen((60, 90, 96)) - 8000)).clip(9000, 40000).astype(np.uint16)
    for number in (15, 21, 74):
        sample = tmp_path / f"ome/train/Femur_{number}_80kV_ome.zarr"
        zarr.create_group(str(sample), zarr_format=2)
        for part, array in (("HR", values), ("LR", halve(values)), ("REG", halve(values))):
            hoa_zarr(sample / part, array, levels=2)
    sheet = sheet.replace("100:160", "10:58").replace("micro_slices", "micro_slices\tmicro_spacing")
    sheet = sheet.replace("HR\n", "HR\t\t0.06x0.06x0.06\n").replace("10:58", "10:58\t0.06x0.06x0.06")
    plan = plan_of(tmp_path, block("yaml", "experiment: femur"), sheet)
    assert plan.scanned_cases == ["femur-15", "femur-21", "femur-74"]
    truth = ["--truth", "truth.nii.gz", "--output", "clinical.nii.gz", "--case", "femur-74"]
    main(["scan", *shlex.split(plan.micro_scan_words("femur-74")), *truth])
    main(["volumes", "clinical", "--input", "clinical.nii.gz", "--case", "a", "--output", "c.ome.zarr",
          *shlex.split(config.flags(plan.experiment.volumes.clinical))])  # fmt: skip
    found = open_volume(tmp_path / "c.ome.zarr")
    assert found.shape == (5, 11, 12) and found.spacing == pytest.approx((0.48, 0.48, 0.5))
    assert 50 < found.array[2].max() < 2000, "HU between soft tissue and bone"
