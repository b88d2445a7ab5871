"""An output that is being written, slice by slice, by any step: nothing but a whole one ever has its name.

It is checked against the room on the disk before its first slice, and a run that was stopped, by whatever, is gone on
with. What is written, and in which format, is up to `microsr.formats.writers`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from microsr.core.errors import UserError
from microsr.core.files import AGAIN, NO_ROOM, explain_errors, lock, put_in_place, unlock
from microsr.core.progress import logger
from microsr.formats.writers import FORMATS, Writer, kind_of, open_writer, raw_bytes
from microsr.volume.storage import Volume, geometry_of

__all__ = ["FORMATS", "Partial", "Writer", "check_replaceable", "kind_of", "open_writer", "raw_bytes", "read_journal"]


class Partial:
    """An output that is being written under the name `<output>.partial`, with a journal `<output>.partial.json`.

    fingerprint: what decides the values, as plain JSON values. If a partial output with the same fingerprint, format,
    shape, geometry and attributes is there, it is gone on with; any other is replaced. block: first slice and end
    (excluded) of those that are written, where several processes share an OME-Zarr; None: all. Other arguments as for
    `open_writer`.

    Raises
    ------
    UserError
        There is not enough room for what is still to be written, `output` is something that is not to be replaced, or
        another run is writing it.
    """

    def __init__(
        self,
        output: Path,
        kind: str,
        shape: tuple[int, int, int],
        like: Volume | dict[str, Any],
        fingerprint: dict[str, Any],
        source: Path | None = None,
        series: str | None = None,
        block: tuple[int, int] | None = None,
    ) -> None:
        output = Path(output)
        self.path = output.with_name(f"{output.name}.partial")
        """Where the slices are while the output is not whole."""
        self.done = 0
        """Slices that are there, from the block's first on."""
        self._first, end = block or (0, shape[0])
        self._output, self._total = output, end - self._first
        if self._total != shape[0] and kind != "ome-zarr":
            raise UserError(f"{output}: only OME-Zarr can be written in parts; write that, and export the whole")
        self._journal = output.with_name(f"{output.name}.partial.json")
        check_replaceable(output, kind)
        volume = geometry_of(like)
        facts = {"format": kind, "shape": shape, "block": block, "DICOM source": source and [str(source), series]}
        facts |= {key: getattr(volume, key) for key in ("spacing", "origin", "direction", "unit", "attributes")}
        self._fingerprint = json.loads(json.dumps({"values": fingerprint, "output": facts}))
        with explain_errors(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            self._lock = lock(output.with_name(f"{output.name}.partial.lock"), f"{output}: is being written")
        try:
            self._writer = self._continue_or_start(kind, shape, volume, source, series, fingerprint)
        except BaseException:
            unlock(self._lock)
            raise
        if self.done:
            logger.info("%s continues at slice %d of %d", output, min(self.done + 1, self._total), self._total)

    def _continue_or_start(self, kind: str, shape: tuple[int, int, int], *how: Any) -> Writer:
        state = self._find_stopped()
        self._check_room(kind, shape)
        try:
            return self._open_writer(state, kind, shape, *how)
        except ValueError as error:
            logger.warning("%s, its %d slices cannot be used; starting from the beginning", error, self.done)
            self.done = 0
            self._check_room(kind, shape)
            return self._open_writer(None, kind, shape, *how)

    def _open_writer(
        self, state: dict | None, kind: str, shape: tuple[int, int, int], volume: Volume, *origin: Any
    ) -> Writer:
        if state is None:  # first of all the journal, which must not speak of what replaces its slices
            self._journal.unlink(missing_ok=True)
        try:
            return open_writer(self.path, kind, shape, volume, state, *origin)
        except OSError as error:
            raise self._explain(error) from error

    def _find_stopped(self) -> dict[str, Any] | None:
        """State of the writer that was stopped, if there was one of the same fingerprint; sets `done`."""
        journal = read_journal(self._output)
        if journal is None:
            return None
        if journal["fingerprint"] == self._fingerprint:
            self.done = journal["done"]
            return journal["state"]
        logger.warning(
            "%s was begun with another %s, its %d slices cannot be used; starting from the beginning",
            *(self.path, ", ".join(_name_changes(journal["fingerprint"], self._fingerprint)), journal["done"]),
        )
        return None

    def _check_room(self, kind: str, shape: tuple[int, int, int]) -> None:
        needed = raw_bytes(kind, shape) * (self._total - self.done) // max(shape[0], 1)
        free = free_bytes(self._output.parent)
        if not self.done and self.path.exists():
            free += _size(self.path)  # is going to be replaced
        if needed > free:
            raise UserError(
                f"{self._output}: needs up to {_tell_bytes(needed)}, {_tell_bytes(free)} are free in "
                f"{self._output.parent}; make room, write elsewhere, or choose fewer slices"
            )

    def write(self, image: np.ndarray) -> None:
        """Write the next slice, int16 HU [rows, columns]; it is safe from a killed process thereafter.

        Raises
        ------
        UserError
            The disk is full; the slices written before are kept.
        """
        try:
            self._writer.write(self._first + self.done, image)
            self._note(self.done + 1)
        except OSError as error:
            raise self._explain(error) from error
        self.done += 1

    def _note(self, done: int) -> None:
        """Write the journal: as a file that replaces the one before, so that there always is a whole one."""
        text = json.dumps({"fingerprint": self._fingerprint, "done": done, "state": self._writer.state()})
        temporary = self._journal.with_name(f".{self._journal.name}")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self._journal)

    def _explain(self, error: OSError) -> Exception:
        if error.errno not in NO_ROOM:
            return error
        return UserError(
            f"{self._output}: the disk is full, or takes no larger file ({error.strerror}); {self.done} of "
            f"{self._total} slices are kept in {self.path}; make room, {AGAIN}: it continues there"
        )

    def finish(self) -> None:
        """Give the whole output its name, in place of one that was there.

        Raises
        ------
        ValueError
            Slices are missing.
        """
        if self.done != self._total:
            raise ValueError(f"{self._output}: only {self.done} of {self._total} slices are written")
        self._writer.close()
        put_in_place(self.path, self._output)
        self._journal.unlink(missing_ok=True)
        self._journal.with_name(f".{self._journal.name}").unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Stop here; the same arguments go on from here later."""
        self._writer.close()
        unlock(self._lock)

    def __enter__(self) -> Partial:
        """Itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close."""
        self.close()


def read_journal(output: Path) -> dict[str, Any] | None:
    """Journal of an output that is not whole yet (`fingerprint`, `done`: slices, `state`); None: there is none."""
    output = Path(output)
    try:
        journal = json.loads(output.with_name(f"{output.name}.partial.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    whole = isinstance(journal, dict) and {"fingerprint", "done", "state"} <= journal.keys()
    return journal if whole and output.with_name(f"{output.name}.partial").exists() else None


def free_bytes(folder: Path) -> int:
    """Room on the disk that holds `folder`."""
    return shutil.disk_usage(folder).free


def check_replaceable(output: Path, kind: str) -> None:
    """Refuse to replace a folder by anything but another output of its kind: a name may have been meant otherwise.

    Raises
    ------
    UserError
        Something else is there.
    """
    if not output.exists() or not (output.is_dir() or kind in ("ome-zarr", "dicom")):
        return
    if kind == "ome-zarr":
        alike = (output / "zarr.json").is_file()
    else:
        alike = kind == "dicom" and output.is_dir() and all(p.match("slice*.dcm") for p in output.iterdir())
    if not alike:
        raise UserError(f"{output}: exists and is no earlier output of this kind; give another name, or remove it")


def _name_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Names of what differs between two fingerprints."""
    pairs = [(old.get(part, {}), new.get(part, {})) for part in ("values", "output")]
    return [key for was, now in pairs for key in was | now if was.get(key) != now.get(key)]


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())


def _tell_bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
