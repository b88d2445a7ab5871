"""How a result came to be: the chain of records, run.json, from it back to the files that no step made.

In: any result. Out: text for people, or JSON. Each step is told of once, however many others used what it made.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

from microsr.core.code_version import STEPS, step_version
from microsr.core.errors import UserError
from microsr.core.progress import logger
from microsr.core.provenance import RUN, absolute, checksum, find_run, run_file
from microsr.core.urls import url

WIDTH = 120
SHORT = 12
"""Digits of a checksum that people are shown of what can be made again."""
SAME = ("microsr", "commit", "uncommitted_changes", "platform")
"""What is told once for all steps that agree in it, as are the versions of packages."""
WORDS = {
    "unchanged": "unchanged",
    "changed": "CHANGED since it was used",
    "gone": "NOT FOUND",
    "not checked": "not checked",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr provenance`."""
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help="any result: a figure, table, model, volume, patch set; with --crate the folder of an experiment",
    )
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    parser.add_argument(
        "--no-check", action="store_true", help="do not read the files to see whether they are what they were"
    )
    parser.add_argument(
        "--crate",
        type=Path,
        metavar="OUT",
        help="write an experiment as a Workflow Run RO-Crate, a new folder or .zip, for a reviewer or an archive",
    )


def main(namespace: argparse.Namespace) -> None:
    """Run `microsr provenance`."""
    if namespace.crate is not None:
        from microsr.report.crate import write_crate

        write_crate(namespace.file, namespace.crate)
        return
    found = trace(namespace.file, check=not namespace.no_check)
    print(json.dumps(found, indent=1, ensure_ascii=False) if namespace.json else "\n".join(lines(found)))


def trace(file: Path, check: bool = True) -> dict[str, Any]:
    """The steps behind a result, as plain JSON values.

    "records" holds each step once, under its record's name, the result's own first: what run.json says, "current_code"
    (whether the present code is the one that made it; None: there is no such step) and "inputs", a list of "file",
    "sha256" and "slices" as they were used, "record" (None: no step made it) and "state" (a key of WORDS). Names are
    those of the records, relative to "folder" where they are relative; "moved" holds where a file lies now, if that is
    elsewhere.

    Raises
    ------
    UserError
        There is no such file, or it has no record, or a record is damaged.
    """
    file = absolute(file)
    if not file.exists():
        raise UserError(f"{file}: does not exist; correct the path")
    first = find_run(file)
    if first is None:
        raise UserError(
            f"{file}: has no record; a result of microsr has {run_file(file).name} beside it, or {RUN} in its folder"
        )
    records: dict[str, Any] = {}
    names: dict[Path, str] = {}
    sums: dict[tuple, str] = {}
    todo = [first]
    while todo:
        path = todo.pop(0)
        run = read_record(path)
        place = _Place(path, run)
        names.setdefault(path, place.name)
        inputs = []
        for name, sha in run["inputs"].items():
            slices = run.get("slices_read", {}).get(name)
            there = place.find(name)
            record = find_run(there) if there is not None else None
            if record == path:  # its own folder, say: that does not make it its own input
                record = None
            if record is not None and record not in names:
                names[record] = _Place(record, read_record(record)).name
                todo.append(record)
            inputs.append(
                {"file": name, "sha256": sha, **({} if slices is None else {"slices": slices})}
                | {
                    "record": record and names[record],
                    "state": "not checked" if url(name) else _state(there, sha, slices, check, sums),
                }
            )
        known = run["step"] in STEPS
        current = step_version(run["step"]) == run["code"].get("fingerprint") if known else None
        records[names[path]] = {**run, "inputs": inputs, "current_code": current, "found_at": str(path)}
    return {"file": str(file), "record": names[first], "records": records}


def read_record(path: Path) -> dict[str, Any]:
    """What a record says: "step", "inputs" and "code" at the least.

    Raises
    ------
    UserError
        The record is damaged.
    """
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        return {**run, "step": str(run["step"]), "inputs": dict(run["inputs"]), "code": dict(run["code"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: is no record of a run ({error}); make what lies beside it again, or delete the record"
        ) from None


class _Place:
    """Where the names of a record lead to, although the folder in which it was written may have been moved or renamed.

    A record names itself: what its name and its place have in common at their ends is the part that was moved as it
    was.
    """

    def __init__(self, path: Path, run: dict[str, Any]) -> None:
        self.name = run.get("record") or str(path)
        own, here = list(Path(self.name).parts), list(path.parts)
        while own and here and own[-1] == here[-1]:
            own.pop()
            here.pop()
        self._before, self._now = tuple(own), Path(*here)
        self._folders = [Path.cwd(), *path.parents]

    def find(self, name: str) -> Path | None:
        """The file or folder of that name, None if it is not there."""
        parts, tried = Path(name).parts, []
        if parts[: len(self._before)] == self._before:
            tried.append(self._now.joinpath(*parts[len(self._before) :]))
        tried += [folder / name for folder in self._folders]  # an absolute name is itself
        return next((path for path in map(absolute, tried) if path.exists()), None)


def _state(path: Path | None, sha: str, slices: list[int] | None, check: bool, sums: dict[tuple, str]) -> str:
    """A key of WORDS. sums: checksums that are known already."""
    if path is None:
        return "gone"
    if not check:
        return "not checked"
    key = (path, None if slices is None else tuple(slices))
    if key not in sums:
        logger.debug("reading %s", path)
        sums[key] = checksum(path, slices=slices)
    return "unchanged" if sums[key] == sha else "changed"


def lines(found: dict[str, Any]) -> list[str]:
    """The chain as an indented tree, with the originals and all that is amiss at its end."""
    records = found["records"]
    usual = _usual(records.values())
    told: set[str] = set()
    text = [found["file"]]

    def tell(name: str, indent: str) -> None:
        told.add(name)
        text.extend(f"{indent}{line}" for line in _describe(records[name], usual, WIDTH - len(indent)))
        for given in records[name]["inputs"]:
            text.append(f"{indent}- {_name_input(given)}" + (", as above" if given["record"] in told else ""))
            if given["record"] is not None and given["record"] not in told:
                tell(given["record"], f"{indent}    ")

    tell(found["record"], "  ")
    every = {given["file"]: given for run in records.values() for given in run["inputs"] if given["record"] is None}
    text += ["", f"{len(records)} steps from {len(every)} files that no step made"]
    text += [f"all steps, where nothing else is said: {', '.join(usual.values())}"]
    amiss = [
        f"{given['file']}: {WORDS[given['state']]} for {name}"
        for name, run in records.items()
        for given in run["inputs"]
        if given["state"] in ("changed", "gone")
    ]
    amiss += [f"{name}: made by other code" for name, run in records.items() if run["current_code"] is False]
    return text + [f"amiss: {line}" for line in amiss]


def _usual(records: Any) -> dict[str, str]:
    """What most records say of the code and the machine."""
    facts = [_facts(run) for run in records]
    names = dict.fromkeys(name for one in facts for name in one)
    return {name: Counter(one[name] for one in facts if name in one).most_common(1)[0][0] for name in names}


def _facts(run: dict[str, Any]) -> dict[str, str]:
    """Code and machine of a record, in words, by name."""
    code, found = run["code"], {"microsr": f"microsr {run['code'].get('microsr')}"}
    changes = {True: " with uncommitted changes", False: "", None: ""}[code.get("uncommitted_changes")]
    found["commit"] = f"commit {code['commit'][:SHORT]}{changes}" if code.get("commit") else "no commit"
    found["platform"] = str(run.get("platform"))
    return found | {name: f"{name} {version}" for name, version in run.get("packages", {}).items()}


def _describe(run: dict[str, Any], usual: dict[str, str], width: int) -> list[str]:
    """A step: when, how long, by which code, with which settings, and in what it differs from the others."""
    attempts = run.get("attempts", [])
    seconds = sum(attempt.get("seconds", 0) for attempt in attempts) if attempts else run.get("seconds", 0)
    spent = f"{seconds:.1f} s" + (f" in {len(attempts)} attempts" if len(attempts) > 1 else "")
    threads = attempts[-1].get("threads") if attempts else None
    spent += f" on {threads} {'thread' if threads == 1 else 'threads'}" if threads else ""
    code = {True: "the present code", False: "OTHER CODE than the present one", None: "code that is not here"}
    fingerprint = str(run["code"].get("fingerprint"))
    head = f"{run['step']}, {run.get('started')}, {spent}, by {code[run['current_code']]} ({fingerprint})"
    settings = " ".join(f"{name}={value}" for name, value in leaves(run.get("settings", {})))
    unusual = [text for name, text in _facts(run).items() if text != usual[name]]
    return [
        head,
        *textwrap.wrap(
            settings, max(width, 60), initial_indent="with ", subsequent_indent="     ", break_long_words=False
        ),
        *([f"but: {', '.join(unusual)}"] if unusual else []),
    ]  # fmt: skip


def leaves(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Dotted names and values of what is set."""
    found = []
    for key, value in settings.items():
        if isinstance(value, dict):
            found += leaves(value, f"{prefix}{key}.")
        elif value is not None:
            found.append((f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)))
    return found


def _name_input(given: dict[str, Any]) -> str:
    """An input: its name, its checksum as it was used, and whether it still is the same."""
    sha = given["sha256"] if given["record"] is None else given["sha256"][:SHORT]
    slices = given.get("slices")
    of = "" if slices is None else f" of slices {', '.join(map(str, slices))}" if slices else " of its metadata"
    return f"{given['file']}  sha256{of} {sha}  {WORDS[given['state']]}"
