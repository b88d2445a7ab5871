# Gives the environment the command `microsr`, which runs the clone's code: the workflow puts it on PYTHONPATH.
set -eu
printf '#!/bin/sh\nexec "%s/bin/python" -m microsr "$@"\n' "$CONDA_PREFIX" > "$CONDA_PREFIX/bin/microsr"
chmod +x "$CONDA_PREFIX/bin/microsr"
