"""The examples of docs/extending.md, as they stand there: one new file and one line each, run in a copy of the
project.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import yaml
from workflows import ROOT, Workflow, copy_workflow

from microsr.config import load
from microsr.core import code_version
from microsr.core.errors import UserError
from microsr.figures.charts.losses import make_losses
from microsr.inference.upsamplers import Bicubic, upsample_slice

PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
PARTS = {
    "loss": "A loss",
    "network": "A family of networks",
    "method": "A trainable method",
    "upsampler": "A method that needs no training",
    "format": "A file format",
    "protocol": "A protocol of evaluation",
    "figure": "A figure",
}
STEPS = (
    "simulate", "volumes", "patches", "domain", "train", "superresolve", "gather", "export", "evaluate",
    "evaluate.downsampled", "figures.losses", "figures.metrics",
)  # fmt: skip


class Example:
    """A section of the page: the new file, the one line, and the experiment."""

    def __init__(self, heading: str) -> None:
        text = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)[1]
        ((self.path, self.code),) = re.findall(
            r"^`(src/\S+)`:\n\n```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL
        )
        self.diff, *self.entries = re.findall(r"^```diff\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        (self.experiment,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        self.name = yaml.safe_load(self.experiment)["experiment"]
        self.registry, *self.described = (
            diff.splitlines()[0].removeprefix("--- a/") for diff in (self.diff, *self.entries)
        )

    def put_into(self, copy: Workflow) -> None:
        """Write the new file and the experiment, and change the line; of a protocol, add to the catalogue too."""
        for entry in self.entries:
            old, _, _, before, *lines = entry.splitlines()
            copy.edit(
                old.removeprefix("--- a/"), f"{before[1:]}\n", "".join(f"{line[1:]}\n" for line in (before, *lines))
            )
        old, new, *lines = self.diff.splitlines()
        assert (old[:6], new[:6]) == ("--- a/", "+++ b/") and old[6:] == new[6:]
        lines = [line for line in lines if not line.startswith("@@")]
        assert sum(line.startswith("+") for line in lines) == 1 and sum(line.startswith("-") for line in lines) <= 1
        before, after = ("".join(f"{line[1:]}\n" for line in lines if line[0] != sign) for sign in "+-")
        assert (copy.folder / old[6:]).read_text(encoding="utf-8").count(before) == 1
        copy.edit(old[6:], before, after)
        assert not (copy.folder / self.path).exists()
        (copy.folder / self.path).write_text(self.code, encoding="utf-8")
        (copy.folder / f"experiments/{self.name}.yaml").write_text(self.experiment, encoding="utf-8")


EXAMPLES = {kind: Example(heading) for kind, heading in PARTS.items()}


def run(copy: Workflow, *arguments: object) -> str:
    """Python on the copy's package, not on this clone's; what it said."""
    environment = copy.environment() | {
        "PYTHONPATH": str(copy.folder / "src"),
        "OMP_NUM_THREADS": "1",
        "PYTEST_ADDOPTS": "",
    }
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=copy.folder, env=environment, encoding="utf-8",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    return done.stdout


def versions(copy: Workflow) -> dict[str, str]:
    """The version of the code of each step, as the copy's files are now."""
    code_version.fingerprint.cache_clear()
    code_version._code.cache_clear()
    source = copy.folder / "src/microsr"
    command = code_version.fingerprint(code_version.STEPS["figures"], True, source)
    return {
        step: f"{command if step.startswith('figures.') else ''}{code_version.fingerprint(module, source=source)}"
        for step, module in ((step, code_version.STEPS[step]) for step in STEPS)
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Workflow:
    """A copy as the project is."""
    return copy_workflow(tmp_path_factory.mktemp("plain") / "clone")


@pytest.fixture(scope="module")
def before(plain) -> dict[str, str]:
    """Its versions, which are those that the project says itself."""
    found = versions(plain)
    assert found == {step: code_version.step_version(step).replace(" ", "") for step in STEPS}
    return found


@pytest.fixture(scope="module")
def extended(tmp_path_factory) -> Workflow:
    """A copy with all examples and this folder's tests."""
    copy = copy_workflow(tmp_path_factory.mktemp("extended") / "clone")
    for example in EXAMPLES.values():
        example.put_into(copy)
    (copy.folder / "tests").mkdir()
    for file in (Path(__file__).with_name("test_contracts.py"), ROOT / "tests/unit/core/test_registry.py"):
        shutil.copy(file, copy.folder / "tests")
    shutil.copy(ROOT / "pyproject.toml", copy.folder)
    return copy


def test_the_copy_runs_its_own_code(extended):
    assert run(extended, "-c", "import microsr; print(microsr.__file__)").startswith(str(extended.folder))


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_the_files_are_clean(example, extended):
    ruff = str(Path(sys.executable).with_name("ruff"))
    for command in (["check"], ["format", "--diff"]):
        done = subprocess.run(
            [ruff, *command, "--config", str(ROOT / "pyproject.toml"), example.path], cwd=extended.folder,
            encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


def test_the_new_parts_offer_what_their_protocols_ask_for(extended):
    code = "from microsr.core.registry import families, figures, formats, losses, methods, protocols, upsamplers; "
    code += "print(*families.FAMILIES, *formats.FORMATS, *losses.LOSSES, *methods.METHODS, *upsamplers.UPSAMPLERS, "
    code += "*protocols.PROTOCOLS, *figures.FIGURES)"
    named = run(extended, "-c", code).split()
    assert {"tiny", "vtk", "total_variation", "median", "lanczos", "density", "forest"} < set(named)
    said = run(
        extended, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_registry.py", "-k", "offers or words"
    )
    assert "8 passed" in said


def test_each_file_stands_in_a_package_that_may_have_it(extended):
    """It imports what stands below it; and no folder has become too full to find something in it."""
    assert "1 kept, 0 broken" in run(extended, Path(sys.executable).with_name("lint-imports"))
    for example in EXAMPLES.values():
        folder = (extended.folder / example.path).parent
        assert len([module for module in folder.glob("*.py") if module.name != "__init__.py"]) <= 16, folder


def test_the_new_parts_keep_their_contracts(extended):
    """`-k` finds a test of each, though test_contracts.py does not know them."""
    said = run(
        extended, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rA", "tests/test_contracts.py", "-k",
        "total_variation or tiny or median or lanczos or vtk or density or forest",
    )  # fmt: skip
    # Of each part the tests, however many scales they are for: tests/test_contracts.py::test_...[2-tiny]
    tests = set(re.findall(r"^PASSED .*::(\w+)\[(?:\d+-)?([a-z_]+)(?:-\d+)?\]$", said, re.MULTILINE))
    passed = [name for _, name in tests]
    assert {name: passed.count(name) for name in set(passed)} == {
        "total_variation": 3,
        "tiny": 5,
        "median": 4,
        "lanczos": 3,
        "vtk": 3,
        "density": 2,
        "forest": 2,
    }


@pytest.mark.parametrize(
    ("kind", "again"),
    [
        ("loss", {"train"}),
        ("network", {"train", "superresolve"}),
        ("method", {"train"}),
        ("upsampler", {"superresolve"}),
        ("format", {"simulate", "volumes", "superresolve", "export"}),
        ("protocol", set()),
        ("figure", set()),
    ],
)
def test_a_new_part_is_code_of_the_steps_that_can_use_it(kind, again, plain, before):
    """As the page says, and of no other: a format trains nothing again. Else a change of the file would go
    unnoticed.
    """
    example = EXAMPLES[kind]
    changed = {plain.folder / name for name in (example.registry, *example.described)}
    unlisted = {file: file.read_text(encoding="utf-8") for file in changed}
    try:
        example.put_into(plain)
        added = versions(plain)
        file = plain.folder / example.path
        file.write_text(f"{example.code}\nANOTHER = 1\n", encoding="utf-8")
        edited = versions(plain)
        for registry, text in unlisted.items():
            registry.write_text(text, encoding="utf-8")
        assert versions(plain) == before, "without its line a file is code of no step"
    finally:
        for registry, text in unlisted.items():
            registry.write_text(text, encoding="utf-8")
        (plain.folder / example.path).unlink(missing_ok=True)
    reading = {"figures.metrics"} if example.described else set()  # which shows what the catalogue says
    assert {step for step in before if added[step] != before[step]} == again | reading
    assert {step for step in before if edited[step] != added[step]} == again


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("loss", "methods.smooth.losses.total_variation: unknown key; allowed here: adversarial, "),
        ("network", "methods.tiny.train.network: Input should be 'efficient', 'resnet' or 'compact'"),
        (
            "method",
            "methods.median.kind: must be one of cyclegan, ",
        ),
        (
            "upsampler",
            "methods.lanczos.kind: must be one of cyclegan, ",
        ),
        ("format", "superresolve.formats.0: Input should be 'nifti', 'nifti.gz', "),
        ("protocol", "evaluate.further_protocols.0: Input should be 'distribution', "),
    ],
)
def test_without_its_line_an_experiment_is_refused(kind, said):
    """The registries are what knows a name."""
    with pytest.raises(UserError) as error:
        load(yaml.safe_load(EXAMPLES[kind].experiment))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("loss", ["--losses.total_variation 0.1 ", "figures/network.png"]),
        ("network", ["--network tiny ", "figures/efficiency.png", "figures/tiling.png"]),
        ("method", ["--kind median --network ", "superresolved/median/pooled/test1.ome.zarr"]),
        ("upsampler", ["--upsampler lanczos ", "superresolved/lanczos/none/test1.ome.zarr"]),
        ("format", ["superresolved/proposed/pooled/test1.vtk", "superresolved/bicubic/none/test1.vtk"]),
        ("protocol", ["microsr evaluate density --case test1 --method bicubic ", "figures/metrics_density.png"]),
        ("figure", ["microsr figures forest --table results/pairs/tables/paired.csv --output "]),
    ],
)
def test_each_experiment_is_planned(kind, expected, extended):
    name = EXAMPLES[kind].name
    done = extended.snakemake("-n", "-p", "--configfile", f"experiments/{name}.yaml")
    assert done.returncode == 0, done.stdout[-3000:]
    for words in expected:
        assert words in done.stdout, words
    assert f"results/{name}/" in done.stdout


def test_a_loss_is_learnt_logged_and_drawn(extended, tmp_path):
    """Under a large weight the total variation falls."""
    random = np.random.default_rng(0)
    for modality, size in (("clinical", 8), ("micro", 64)):
        np.save(tmp_path / f"{modality}.npy", random.normal(-700, 150, (12, size, size)).astype(np.int16))
    run(
        extended, "-m", "microsr", "train", "--clinical", tmp_path / "clinical.npy", "--micro", tmp_path / "micro.npy",
        "--output", tmp_path / "model", "--state", tmp_path / "state", "--seed", 1, "--window_hu", -1000, 400,
        "--epochs", 20, "--patches_per_case", 12, "--batch_size", 4, "--learning_rate", "1e-3", "--network", "tiny",
        "--losses.total_variation", 100,
    )  # fmt: skip
    history = pd.read_csv(tmp_path / "model/history.csv")["total_variation_loss"]
    assert history.iloc[-5:].mean() < 0.7 * history.iloc[0]
    assert (
        make_losses({"smooth/pooled": tmp_path / "model/history.csv"}, tmp_path / "losses").count(
            "total_variation_loss"
        )
        == 1
    )
    assert (tmp_path / "losses.png").stat().st_size > 10_000


def test_a_trainable_method_learns_and_its_model_says_of_which_kind_it_is(extended, tmp_path):
    """A quarter of each uCT patch is air: its average is darker than its median, which is what the example learns."""
    random = np.random.default_rng(0)
    for modality, size in (("clinical", 8), ("micro", 64)):
        level = random.uniform(-500, -300, (12, 1, 1))
        patches = np.where(random.random((12, size, size)) < 0.25, -1000, level)
        np.save(tmp_path / f"{modality}.npy", patches.astype(np.int16))
    run(
        extended, "-m", "microsr", "train", "--kind", "median", "--clinical", tmp_path / "clinical.npy",
        "--micro", tmp_path / "micro.npy", "--output", tmp_path / "model", "--state", tmp_path / "state", "--seed", 1,
        "--window_hu", -1000, 400, "--epochs", 20, "--patches_per_case", 12, "--batch_size", 4,
        "--learning_rate", "3e-3", "--network", "tiny",
    )  # fmt: skip
    history = pd.read_csv(tmp_path / "model/history.csv")
    assert [name for name in history if name.endswith("_loss")] == ["median_loss"]
    assert history["median_loss"].iloc[-5:].mean() < 0.85 * history["median_loss"].iloc[0]
    said = run(extended, "-m", "microsr", "info", tmp_path / "model/generator.pt")
    assert re.search(r"(?m)^method +median$", said)


def test_a_method_and_a_format_work_from_the_command_line(extended, tmp_path):
    """From a scan in the new format, by the new method, into the new format; read by a program that shares no code."""
    random = np.random.default_rng(0)
    hu = np.where(np.hypot(*(np.indices((40, 40)) - 20)) < 16, -800.0, 40.0) + random.normal(0, 20, (3, 40, 40))
    scan = sitk.GetImageFromArray(hu.astype(np.int16))
    scan.SetSpacing((0.625, 0.625, 1.25))
    scan.SetOrigin((-10.0, 20.5, 3.0))
    sitk.WriteImage(scan, str(tmp_path / "scan.vtk"))
    command = ("-m", "microsr", "superresolve", tmp_path / "scan.vtk", "--upsampler", "lanczos")
    run(extended, *command, "--output", tmp_path / "sr.vtk")
    found = sitk.ReadImage(str(tmp_path / "sr.vtk"))
    assert found.GetSize() == (320, 320, 3)
    assert found.GetSpacing() == pytest.approx((0.078125, 0.078125, 1.25))
    assert found.GetOrigin() == pytest.approx((-10 - 0.625 * 7 / 16, 20.5 - 0.625 * 7 / 16, 3))
    bicubic = np.stack([upsample_slice(image, 0, Bicubic()) for image in sitk.GetArrayFromImage(scan)])
    assert 1 < np.abs(sitk.GetArrayFromImage(found) - bicubic).mean() < 20  # another interpolation of the same scan
    assert '"lanczos"' in (tmp_path / "sr.vtk.run.json").read_text(encoding="utf-8")


def test_a_damaged_file_of_the_new_format_is_refused(extended, tmp_path):
    header = "# vtk DataFile Version 3.0\nx\nBINARY\nDATASET STRUCTURED_POINTS\nDIMENSIONS 4 4 2\nSPACING 0.5 0.5 1\n"
    sound = f"{header}ORIGIN 0 0 0\nPOINT_DATA 32\nSCALARS s short 1\nLOOKUP_TABLE default\n".encode() + bytes(64)
    expected = {
        sound: "(2, 4, 4)",
        sound.replace(b"BINARY", b"ASCII"): "save it as structured points, binary",
        sound.replace(b"SPACING 0", b"SPACES 0"): "save it as structured points, binary",
        sound.replace(b"SPACING 0.5", b"SPACING 0.0"): "has no voxel spacing",
        sound[:-1]: "is damaged or truncated",
    }
    for number, content in enumerate(expected):
        (tmp_path / f"{number}.vtk").write_bytes(content)
    code = (
        "import sys; from microsr.core.errors import UserError; from microsr.config.sheet import Scan; from "
        "microsr.formats.readers import read_scan\nfor path in sys.argv[1:]:\n    try: "
        "print(read_scan(Scan(path=path)).shape)\n    except UserError as error: print(error)"
    )
    said = run(extended, "-c", code, *sorted(tmp_path.glob("*.vtk"))).splitlines()
    assert len(said) == len(expected)
    assert all(words in line for words, line in zip(expected.values(), said, strict=True)), said


# A down-sampled uCT and the same 10 HU denser, which is evaluated; then the tables are put together.
MEASURE = """
import sys
from pathlib import Path
import numpy as np
from microsr import config
from microsr.core.errors import UserError
from microsr.evaluation import collect
from microsr.evaluation.protocols import downsampled
from microsr.volume.storage import Volume, write_volume
folder = Path(sys.argv[1])
hu = np.random.default_rng(0).normal(-800, 100, (2, 64, 64)).round()
write_volume(folder / "micro", Volume(hu, (0.05, 0.05, 0.05)), np.ones(hu.shape))
write_volume(folder / "sr", Volume(hu + 10, (0.05, 0.05, 0.05), attributes={"slices": [0, 1]}))
downsampled.evaluate(("c", "m", "pooled", "1"), folder / "sr", folder / "micro", folder / "t.csv", config.Evaluate())
try:
    collect.collect([folder / "t.csv"], folder / "metrics.csv")
    print((folder / "metrics.csv").read_text())
except UserError as error:
    print(error)
"""


def test_a_metric_needs_its_entry_and_then_is_in_tables_figures_and_documentation(tmp_path, before):
    copy = copy_workflow(tmp_path / "clone")
    shutil.copytree(ROOT / "docs", copy.folder / "docs", dirs_exist_ok=True, ignore=shutil.ignore_patterns("_build"))
    text = re.search(r"^## A metric\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL)[1]
    diffs = [diff.splitlines() for diff in re.findall(r"^```diff\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]
    told = []
    for old, _, _, *lines in diffs:
        context, whole = ("".join(f"{line[1:]}\n" for line in lines if line[0] in signs) for signs in (" ", " +"))
        copy.edit(old.removeprefix("--- a/"), context, whole)
        told.append(run(copy, "-c", MEASURE, tmp_path))
    assert "the protocol 'downsampled' has no metric 'mean_error'" in told[0]
    assert "c,m,pooled,1,downsampled,mean_error,10,HU" in told[1]
    new = {step for step, version in versions(copy).items() if version != before[step]}
    assert new == {"evaluate.downsampled", "figures.metrics"}, "the protocol, and what shows its metrics"
    run(copy, "docs/extensions/metric_tables.py")
    page = (copy.folder / "docs/metrics.md").read_text(encoding="utf-8")
    assert "| `mean_error` | HU | nearer to 0 is better | Mean error. Mean of the specimen, " in page
    code = (
        "from microsr.evaluation.catalogue import find_metric; print(find_metric('downsampled', 'mean_error').better)"
    )
    assert run(copy, "-c", code).strip() == "nearer to 0 is better"
