"""A Workflow Run RO-Crate of an experiment: what was run on what, with which settings and software.

In: the folder of an experiment with its records, run.json. Out: a folder or zip with the settings, figures, tables,
models and report, the workflow, and ro-crate-metadata.json, which describes each run of a step
(https://w3id.org/ro/wfrun/workflow/0.5). Volumes and patches stay where they are: they are described by name and
checksum, as originals are, of whose paths only the last two parts are told. No person, account or machine is named.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from microsr.core.errors import UserError
from microsr.core.files import replacing
from microsr.core.folders import workflow_folder
from microsr.core.provenance import RUN, checksum, find_run
from microsr.core.urls import url
from microsr.report.lineage import leaves, read_record

METADATA = "ro-crate-metadata.json"
CONTEXT = ["https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context"]
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}
PYTHON_PAGE = "https://docs.python.org/release/{}/"
PACKAGE_PAGE = "https://pypi.org/project/{}/{}/"
COMPLETED = "http://schema.org/CompletedActionStatus"
BIOSCHEMAS = "https://bioschemas.org/profiles/"
SNAKEMAKE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
MIT = "https://spdx.org/licenses/MIT"
OF_RESULTS = (
    "As the owners of the data allow, of which the results are made. The workflow itself is under the MIT licence."
)
CONTAINED = ("figures", "tables", "models")
"""Folders of an experiment whose files the crate contains, with the files beside them; others it describes."""
NO_RESULTS = ("logs", "benchmarks")
WORKFLOW = ("Snakefile", "config.yaml", "rules", "envs", "report")
"""What the crate has of the workflow's own files."""
TYPES = {
    ".png": "image/png",
    ".pdf": "application/pdf",
    ".csv": "text/csv",
    ".html": "text/html",
    ".md": "text/markdown",
}
TYPES |= {".json": "application/json", ".yaml": "application/yaml", ".tex": "application/x-tex"}
TYPES |= {".pt": "application/octet-stream", ".npy": "application/octet-stream", ".npz": "application/octet-stream"}
README = """# {name}

The results of an experiment with microsr {version}, as a Workflow Run RO-Crate: `ro-crate-metadata.json` says which
step made each file, when, from what, with which settings and which software, with checksums (SHA-256).

- `config.yaml`: the settings, without where the volumes lay
- `report.html`, `figures/`, `tables/`, `models/`: results
- `workflow/`: the Snakemake workflow that made them

Volumes and patches are described by name and checksum, and are not here. Super-resolved images show what is plausible,
not what is there: not for diagnosis.
"""


def write_crate(folder: Path, output: Path) -> None:
    """Write the crate of an experiment. It is there whole or not at all.

    folder: results/<experiment>. output: the folder to make, or a file that ends in .zip.

    Raises
    ------
    UserError
        `folder` is no finished experiment, a record is damaged, or `output` is there already.
    """
    folder = Path(folder)
    if output.exists():
        raise UserError(f"{output}: is there already, and nothing is overwritten; name a new folder or .zip")
    records = {path: read_record(path) for path in sorted(folder.rglob(f"*{RUN}")) if not _is_hidden(path, folder)}
    if not (folder / "config.yaml").is_file() or not records:
        raise UserError(f"{folder}: is not the folder of an experiment that was run; give results/<experiment>")
    with replacing(output) as temporary:
        crate = temporary.with_name(f"{temporary.name}.crate") if output.suffix == ".zip" else temporary
        shutil.rmtree(crate, ignore_errors=True)
        crate.mkdir()
        try:
            graph = _Graph(folder, crate, records).describe()
            text = json.dumps({"@context": CONTEXT, "@graph": graph}, indent=1, ensure_ascii=False)
            (crate / METADATA).write_text(text + "\n", encoding="utf-8")
            if crate is not temporary:
                Path(shutil.make_archive(str(crate), "zip", crate)).rename(temporary)
        finally:
            if crate is not temporary:
                shutil.rmtree(crate, ignore_errors=True)


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(name.startswith(".") for name in path.relative_to(folder).parts)


def _results(folder: Path) -> Iterator[Path]:
    """Files below a folder, relative to it, without records; a volume or a DICOM series is one of them."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in NO_RESULTS or path.name.endswith(RUN):
            continue
        if path.is_dir() and not path.name.endswith((".zarr", "dicom")):
            yield from (Path(path.name, inner) for inner in _results(path))
        else:
            yield Path(path.name)


class _Graph:
    """The entities of a crate, by their ids."""

    def __init__(self, folder: Path, crate: Path, records: dict[Path, dict[str, Any]]) -> None:
        self._folder, self._crate, self._records = folder, crate, records
        self._entities: dict[str, dict[str, Any]] = {}
        self._made: dict[Path, list[str]] = {}
        self._originals: list[str] = []

    def describe(self) -> list[dict[str, Any]]:
        """All entities; the files that the crate contains are copied."""
        experiment = yaml.safe_load((self._folder / "config.yaml").read_text(encoding="utf-8"))
        experiment.pop("cases", None)
        version = str(next(iter(self._records.values()))["code"].get("microsr"))
        name = f"microsr: {experiment.get('experiment', self._folder.name)}"
        self._take_text("config.yaml", yaml.safe_dump(experiment, sort_keys=False), "settings of the experiment")
        self._take_text("README.md", README.format(name=name, version=version), "what is in this crate")
        self._entities["README.md"]["about"] = _ref("./")
        self._add("#licence", "CreativeWork", name="Licence of the results", description=OF_RESULTS)
        self._take_workflow(version)
        results = [
            self._take_result(path) for path in _results(self._folder) if path.name not in ("config.yaml", "cases.tsv")
        ]
        actions = [self._add_action(path, run) for path, run in self._records.items()]
        begins, ends = zip(*(_times(run) for run in self._records.values()), strict=True)
        self._add(
            "#run", "CreateAction", name=f"Run of the workflow: {name}",
            description=f"{len(actions)} runs of steps, from the first that began to the last that ended.",
            instrument=_ref("workflow/Snakefile"),
            startTime=min(begins), endTime=max(ends), actionStatus=COMPLETED,
            object=[_ref("config.yaml"), *map(_ref, dict.fromkeys(self._originals))],
            result=list(map(_ref, results)),
        )  # fmt: skip
        for profile, title in PROFILES.items():
            self._add(profile, "CreativeWork", name=title, version=profile.rpartition("/")[2])
        held = [i for i, e in self._entities.items() if {"File", "Dataset"} & {*_as_list(e["@type"])}]
        root = {
            "@id": "./", "@type": "Dataset", "name": name,
            "description": "Super-resolution of clinical lung CT to micro-CT level: settings, results, software and "
            "provenance of an experiment. Not for diagnosis.",
            "datePublished": max(ends), "license": _ref("#licence"), "mainEntity": _ref("workflow/Snakefile"),
            "conformsTo": list(map(_ref, PROFILES)), "hasPart": list(map(_ref, held)),
            "mentions": list(map(_ref, ["#run", *actions])),
        }  # fmt: skip
        descriptor = {
            "@id": METADATA, "@type": "CreativeWork", "about": _ref("./"),
            "conformsTo": [_ref("https://w3id.org/ro/crate/1.1"), _ref(list(PROFILES)[-1])],
        }  # fmt: skip
        return [descriptor, root, *self._entities.values()]

    def _add(self, id_: str, type_: str | list[str], **properties: Any) -> str:
        given = {name: value for name, value in properties.items() if value not in (None, [], "")}
        single = {n: v[0] if isinstance(v, list) and len(v) == 1 else v for n, v in given.items()}
        self._entities.setdefault(id_, {"@id": id_, "@type": type_, **single})
        return id_

    def _take_file(self, id_: str, name: str) -> str:
        """Describe a file that lies in the crate."""
        path = self._crate / id_
        return self._add(
            id_, "File", name=name, contentSize=str(path.stat().st_size), sha256=checksum(path),
            encodingFormat=TYPES.get(path.suffix, "text/plain"),
        )  # fmt: skip

    def _take_text(self, id_: str, text: str, name: str) -> None:
        (self._crate / id_).write_text(text, encoding="utf-8")
        self._take_file(id_, name)

    def _take_workflow(self, version: str) -> None:
        source, target = workflow_folder(), self._crate / "workflow"
        target.mkdir()
        for name in WORKFLOW:
            if (source / name).is_dir():
                shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
                self._add(f"workflow/{name}/", "Dataset", name=f"{name} of the workflow")
            else:
                shutil.copy(source / name, target / name)
                self._take_file(f"workflow/{name}", f"{name} of the workflow")
        main = self._entities["workflow/Snakefile"]
        main["@type"] = ["File", "SoftwareSourceCode", "ComputationalWorkflow"]
        main |= {"name": "microsr", "version": version, "license": _ref(MIT), "programmingLanguage": _ref(SNAKEMAKE)}
        main |= {"conformsTo": _ref(f"{BIOSCHEMAS}ComputationalWorkflow/1.0-RELEASE"), "input": _ref("#settings")}
        self._add(
            "#settings", "FormalParameter", name="settings", additionalType="File", workExample=_ref("config.yaml"),
            conformsTo=_ref(f"{BIOSCHEMAS}FormalParameter/1.0-RELEASE"),
        )  # fmt: skip
        self._entities["config.yaml"]["exampleOfWork"] = _ref("#settings")
        self._add(MIT, "CreativeWork", name="MIT License", url=MIT)
        self._add(
            SNAKEMAKE, "ComputerLanguage", name="Snakemake", url=_ref("https://snakemake.readthedocs.io"),
            identifier=_ref("https://doi.org/10.1093/bioinformatics/bts480"),
        )  # fmt: skip

    def _take_result(self, path: Path) -> str:
        """Copy a result, or describe it where the crate leaves it out."""
        name = path.as_posix()
        if path.parts[0] in CONTAINED or len(path.parts) == 1:
            (self._crate / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self._folder / path, self._crate / path)
            id_ = self._take_file(name, name)
        else:
            id_ = self._leave_out(name, None)
        record = find_run((self._folder / path).absolute())
        if record is not None:
            self._made.setdefault(record, []).append(id_)
        return id_

    def _leave_out(self, name: str, sha: str | None) -> str:
        return self._add(
            f"#{name}",
            "CreativeWork",
            name=name,
            sha256=sha,
            description="A result on the way, not in this crate.",
        )

    def _add_action(self, path: Path, run: dict[str, Any]) -> str:
        """Describe the run of a step that a record tells of."""
        place = path.relative_to(self._folder).as_posix()
        before = str(run.get("record", "")).removesuffix(place)
        begin, end = _times(run)
        settings = [self._add_setting(key, value) for key, value in leaves(run.get("settings", {}))]
        inputs = [self._add_input(name, sha, before, run) for name, sha in run["inputs"].items()]
        return self._add(
            f"#{place}", "CreateAction", name=f"microsr {run['step'].replace('.', ' ')}",
            description=f"{run.get('seconds', 0)} s, on {run.get('cpus')} CPUs, {run.get('cpu_seconds')} CPU seconds.",
            instrument=_ref(self._add_software(run)), startTime=begin, endTime=end,
            object=list(map(_ref, dict.fromkeys([*inputs, *settings]))),
            result=list(map(_ref, self._made.get(path.absolute(), []))),
            actionStatus=COMPLETED,
        )  # fmt: skip

    def _add_input(self, name: str, sha: str, before: str, run: dict[str, Any]) -> str:
        whole = name not in run.get("slices_read", {})
        if before and name.startswith(before):
            own = name.removeprefix(before)
            if own in self._entities:
                return own
            id_ = self._leave_out(own, sha if whole else None)
            if whole:
                self._entities[id_].setdefault("sha256", sha)
            return id_
        if url(name):
            id_ = self._add(name, "CreativeWork", name=name, description="Read from a server.")
        else:
            title = "/".join(Path(name).parts[-2:])
            id_ = f"#original-{sha[:16]}"
            self._add(id_, "CreativeWork", name=title, sha256=sha, description="An original, not in this crate.")
        self._originals.append(id_)
        return id_

    def _add_setting(self, key: str, text: str) -> str:
        digest = hashlib.sha256(f"{key}={text}".encode()).hexdigest()[:16]
        return self._add(f"#setting-{digest}", "PropertyValue", name=key, value=text)

    def _add_package(self, name: str, version: str) -> str:
        page = PYTHON_PAGE.format(version) if name == "python" else PACKAGE_PAGE.format(name, version)
        return self._add(page, "SoftwareApplication", name=name, softwareVersion=version, url=page)

    def _add_software(self, run: dict[str, Any]) -> str:
        """Describe the step's code and the packages and platform that it ran with."""
        code = run["code"]
        packages = [self._add_package(name, version) for name, version in run.get("packages", {}).items()]
        known = [f"code {code.get('fingerprint')}", *([f"commit {code['commit']}"] if code.get("commit") else [])]
        id_ = f"#microsr-{run['step']}-{code.get('fingerprint')}-{code.get('commit') or 'installed'}".replace(" ", "-")
        return self._add(
            id_, "SoftwareApplication", name=f"microsr {run['step'].replace('.', ' ')}",
            softwareVersion=str(code.get("microsr")), description=", ".join(known),
            operatingSystem=run.get("platform"), softwareRequirements=list(map(_ref, packages)), license=_ref(MIT),
        )  # fmt: skip


def _ref(id_: str) -> dict[str, str]:
    return {"@id": id_}


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _times(run: dict[str, Any]) -> tuple[str, str]:
    """When a step began and ended, ISO 8601."""
    begin = datetime.datetime.fromisoformat(str(run.get("started", "1970-01-01T00:00:00Z")))
    end = begin + datetime.timedelta(seconds=float(run.get("seconds") or 0))
    return begin.isoformat(timespec="seconds"), end.isoformat(timespec="seconds")
