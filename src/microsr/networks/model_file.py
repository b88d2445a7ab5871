"""The trained model as one file, generator.pt: weights, what they fit, and how they came about.

It is a zip archive of torch's, as the state of a training is, written whole or not at all; reading checks its
checksums, to which torch.load pays no heed, and runs no code from it.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from microsr import config
from microsr.core.errors import UserError
from microsr.networks.families import FAMILIES, build_g1

STATE, MODEL, VERSION = "microsr training state", "microsr generator", 2
GIVE = "give the generator.pt of a trained model"
ZIP = b"PK\x03\x04"


def _rising(window: list[float]) -> list[float]:
    if not window[0] < window[1]:
        raise ValueError("must rise from the first value to the second")
    return window


class Facts(BaseModel):
    """What a model file says about its model beside the weights."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    kind: str = "cyclegan"
    """Of method, as in methods.<name>.kind; a file that does not say it is of the first kind."""
    network: str
    """Family, as in train.network."""
    sampler: bool = False
    """Whether G1 is the family's for many draws; a file that does not say it has the other."""
    slices: Literal[*config.NEIGHBOURS] = 1
    """Clinical slices that G1 sees, the one to super-resolve in the middle; a file that does not say it has one."""
    slice_mm: Annotated[list[config.Positive], Field(min_length=2, max_length=2)] | None = None
    """Smallest and largest distance of the slices in the training, mm; None: it saw single slices."""
    window_hu: Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_rising)]
    """HU that G1 sees as -1 and 1."""
    seed: Annotated[int, Field(ge=0)]
    """Of the training; decides the noise of super-resolution too."""
    steps: Annotated[int, Field(ge=0)]
    """Trained for."""
    clinical_spacing_mm: Annotated[float, Field(gt=0)] | None
    """Pixel spacing of the clinical patches; None: unknown."""
    micro_spacing_mm: Annotated[float, Field(gt=0)] | None
    """Pixel spacing of the uCT patches; None: unknown."""
    provenance: dict[str, Any]
    """Settings, code, version, and the training set's files with their checksums."""


class _ModelFile(BaseModel):
    """What a model file holds beside its format and version."""

    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True)

    facts: Facts
    architecture: dict[str, Any]
    weights: dict[str, Tensor]


def save_generator(path: Path, g1: nn.Module, facts: dict[str, Any]) -> None:
    """Write G1 as one self-contained file that torch.load(weights_only=True) reads: weights, architecture, `Facts`.

    Raises
    ------
    OSError
        The disk is full, say; a file that was there before is untouched.
    """
    Facts.model_validate(facts)
    weights = {name: tensor.detach().cpu().clone() for name, tensor in g1.state_dict().items()}
    content = {"facts": facts, "architecture": _architecture(facts["network"], g1), "weights": weights}
    write_archive(path, {"format": MODEL, "version": VERSION, **content})


def load_generator(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """G1 in evaluation mode on the CPU, of the scale that the file says, and the `Facts` it was saved with; runs no
    code from the file.

    Raises
    ------
    UserError
        The file is missing, damaged, foreign, of another format version, or does not fit this program's networks.
    """
    return build_model(path, _read_model(path))


def build_model(path: Path, saved: Any) -> tuple[nn.Module, dict[str, Any]]:
    """The same of what a file holds: format, version, facts, architecture and weights. path: told in messages.

    Raises
    ------
    UserError
        It is foreign, of another format version, or does not fit this program's networks.
    """
    _check_content(path, saved)
    facts, network, scale = saved["facts"], saved["facts"]["network"], saved["architecture"].get("scale")
    if scale not in config.SCALES:
        known = ", ".join(map(str, config.SCALES))
        raise UserError(f"{path} has the scale {scale}, this program knows {known}; update microsr, or train it again")
    try:
        g1 = build_g1(network, scale, facts.get("sampler", False), facts.get("slices", 1))
    except KeyError:
        known = ", ".join(FAMILIES)
        raise UserError(f"{path} has a '{network}' network, this program knows {known}; update microsr") from None
    for key, own in _architecture(network, g1).items():
        if (theirs := saved["architecture"].get(key)) != own:
            raise UserError(
                f"{path} was trained with a {network} G1 whose {key} is {theirs}, in this program it is {own}; "
                "use the microsr that trained it, or train it again"
            )
    try:
        g1.load_state_dict(saved["weights"])
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()[:200]
        raise UserError(f"{path} has weights that do not fit its {network} G1 ({reason}); train it again") from None
    for name, weight in saved["weights"].items():
        if not weight.isfinite().all():
            raise UserError(
                f"{path} has weights that are not finite ({name}); train it again, at a lower learning rate"
            )
    return g1.eval(), facts


def _architecture(network: str, g1: nn.Module) -> dict[str, Any]:
    return {
        "network": network,
        "class": type(g1).__name__,
        "parameters": sum(p.numel() for p in g1.parameters()),
        "halo": g1.halo,
        "noise_scales": list(g1.noise_scales),
        "scale": g1.scale,
    }


def _read_model(path: Path) -> Any:
    """Content of an archive."""
    if not path.exists():
        raise UserError(f"{path} does not exist; train a model first")
    if path.is_dir():
        raise UserError(f"{path} is a folder; {GIVE}")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty; train it again")
    with path.open("rb") as stream:
        if stream.read(len(ZIP)) != ZIP and not zipfile.is_zipfile(stream):
            raise UserError(f"{path} is no microsr model; {GIVE}")
    try:
        return read_archive(path, "cpu")
    except MemoryError:
        raise
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} holds more than weights and plain values, perhaps code; it was not run; {GIVE}"
        ) from None
    except Exception as error:  # whatever a damaged file provokes
        raise UserError(
            f"{path} is damaged or no model file ({reason(error)}); copy it again, or train it again"
        ) from None


def _check_content(path: Path, saved: Any) -> None:
    """Refuse what is no model of this version, with each key there and of its type."""
    held = saved.get("format") if isinstance(saved, dict) else None
    if held == STATE:
        raise UserError(f"{path} is the state of an unfinished training; finish it and give its generator.pt")
    if held != MODEL:
        raise UserError(f"{path} is no microsr model; {GIVE}")
    version = saved.get("version")
    if version != VERSION:
        cure = "update microsr" if isinstance(version, int) and version > VERSION else "train it again"
        raise UserError(f"{path} has format version {version}, this program reads {VERSION}; {cure}")
    try:
        _ModelFile.model_validate(saved)
    except ValidationError as error:
        raise UserError(f"{config.describe(error, str(path))}; train it again") from None


def read_archive(path: Path, device: torch.device | str) -> Any:
    """What `write_archive` wrote, its tensors on `device`; any exception may come out of a damaged or foreign file."""
    with path.open("rb") as stream:
        if not zipfile.is_zipfile(stream):
            raise ValueError("its end is missing")
        with zipfile.ZipFile(stream) as archive:
            # torch.load takes a record with a folder's mark (0x10) for an empty one, without a word.
            folders = (entry.filename for entry in archive.infolist() if entry.external_attr & 0x10)
            if broken := archive.testzip() or next(folders, None):
                raise ValueError(f"its part {broken} is broken")
    return torch.load(path, map_location=device, weights_only=True)


def reason(error: Exception) -> str:
    """The first line of what an error says, to be told with the file that it is about."""
    return (str(error) or type(error).__name__).splitlines()[0][:100]


def write_archive(path: Path, content: dict[str, Any]) -> None:
    """Write a file so that even after a power cut a reader finds the old one or the new one."""
    serialised = io.BytesIO()  # onto a full disk torch.save itself fails with an internal error
    torch.save(content, serialised)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as stream:
            stream.write(serialised.getbuffer())
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # not every network file system can
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
