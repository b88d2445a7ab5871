"""A zip for an archive as Zenodo: the commit with its lock, .zenodo.json, and crates of experiments if some are named.

    python .ci/archive.py OUTPUT.zip [CRATE.zip ...]        (make archive CRATES="...")

.zenodo.json is made of CITATION.cff, so that both say the same. What is not committed is refused, as it would not be in
the zip.
"""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
MADE = ".zenodo.json"


def git(*arguments: str) -> str:
    """What git says."""
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def deposit(citation: dict) -> dict:
    """What Zenodo asks for, of a citation."""
    paper = citation["references"][0]
    return {
        "title": citation["title"],
        "upload_type": "software",
        "version": citation["version"],
        "description": " ".join(citation["abstract"].split()),
        "creators": [{"name": author["name"]} for author in citation["authors"]],
        "license": citation["license"],
        "access_right": "open",
        "keywords": citation["keywords"],
        "related_identifiers": [
            {"identifier": one["value"], "relation": "isDerivedFrom", "resource_type": "publication-article"}
            for one in paper["identifiers"]
        ],
        "notes": citation["message"],
        **({"publication_date": str(citation["date-released"])} if "date-released" in citation else {}),
    }


def main(output: Path, crates: list[Path]) -> None:
    """Write the zip."""
    if changed := git("status", "--porcelain"):
        sys.exit(f"error: not as committed, and so not in the archive:\n{changed.rstrip()}")
    if missing := [str(crate) for crate in crates if not crate.is_file()]:
        sys.exit(
            f"error: no such crate: {', '.join(missing)}; microsr provenance results/NAME --crate NAME.zip makes it"
        )
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    output.parent.mkdir(parents=True, exist_ok=True)
    prefix = f"microsr-{citation['version']}/"
    git("archive", "--format=zip", f"--prefix={prefix}", "-o", str(output.absolute()), "HEAD")
    with zipfile.ZipFile(output, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(prefix + MADE, json.dumps(deposit(citation), indent=1, ensure_ascii=False) + "\n")
        for crate in crates:
            archive.write(crate, f"{prefix}crates/{crate.name}")
    print(f"{output}: the commit {git('rev-parse', '--short', 'HEAD').strip()}, {MADE}, {len(crates)} crates")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(crate) for crate in sys.argv[2:]])
