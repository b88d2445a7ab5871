"""What pyproject.toml has no words for: the wheel holds the workflow too, below microsr/pipeline, as it lies in the
repository.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

WORKFLOW = ("Snakefile", "config.yaml", "rules", "envs", "experiments", "profiles", "report")


class BuildWithWorkflow(build_py):
    """Builds the package and lays the workflow into it; an editable installation has the clone's own."""

    def run(self):
        """Run the command."""
        super().run()
        if self.editable_mode:
            return
        folder = Path(self.build_lib, "microsr", "pipeline")
        shutil.rmtree(folder, ignore_errors=True)  # of an older build
        folder.mkdir(parents=True)
        for name in WORKFLOW:
            if Path(name).is_dir():
                shutil.copytree(name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(name, folder / name)


setup(cmdclass={"build_py": BuildWithWorkflow})
