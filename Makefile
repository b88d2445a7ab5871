# The two commands of the project: `make figures` and `make test`. Both make the environment first, in .venv.
.DEFAULT_GOAL := help
.PHONY: help env figures report docs schema shipped lint validators test test-all test-mutations archive release-check lock

VENV := .venv

help:
	@echo "make figures   the figures of the default experiment: simulated lungs, results/demo/figures/comparison.png"
	@echo "make report    all of it as one HTML file to look into: results/demo/report.html; Snakemake's own beside it"
	@echo "make docs      the documentation as a site: docs/_build/index.html"
	@echo "make schema    the JSON schema of the settings, for editors: src/microsr/config/schema.json"
	@echo "make shipped   train the model that \`microsr demo\` uses, and put it and its slab into src/microsr/data/demo"
	@echo "make lint      style, format, layers and types of the code and the rules"
	@echo "make test      the tests of every change; says at its end what it left out"
	@echo "make test-all  every test, nightly ones and test-mutations too: hours on two cores"
	@echo "make test-mutations   how many made-up faults the tests see, an hour"
	@echo "make env       only the environment, .venv, in the exact versions of requirements.lock"
	@echo "make validators       the environment of validators, .venv-validators, that some tests ask for"
	@echo "make archive   dist/microsr-<version>.zip for an archive as Zenodo; CRATES=\"a.zip ...\" lays crates beside the source"
	@echo "make release-check TESTED=<commit>   whether this commit can be released, by the checklist in CONTRIBUTING.md"
	@echo "make lock      solve requirements.in into requirements.lock and envs/"

env: $(VENV)/package.stamp

figures: env
	$(VENV)/bin/snakemake --cores all figures

report: env
	$(VENV)/bin/snakemake --cores all
	$(VENV)/bin/snakemake --report results/demo/snakemake_report.html

# The model and the slab of `microsr demo` (docs/development.md); the slab's middle slice has its truth beside it.
SHIPPED := results/shipped
CALIBRATION := tables/metrics/posterior_mean/pooled/test1.uncertainty.csv
shipped: env
	$(VENV)/bin/snakemake --cores all $(SHIPPED)/models/posterior/pooled/generator.pt $(SHIPPED)/volumes/test1/clinical.ome.zarr \
		$(SHIPPED)/volumes/test1/truth.ome.zarr $(SHIPPED)/$(CALIBRATION) --configfile experiments/shipped.yaml
	$(VENV)/bin/microsr export $(SHIPPED)/volumes/test1/clinical.ome.zarr --slices 3:6 --output $(SHIPPED)/demo/clinical.nii.gz
	$(VENV)/bin/microsr export $(SHIPPED)/volumes/test1/truth.ome.zarr --slices 4:5 --output $(SHIPPED)/demo/truth.nii.gz
	$(VENV)/bin/microsr export $(SHIPPED)/models/posterior/pooled/generator.pt --output $(SHIPPED)/demo/posterior.safetensors \
		--title "The model of microsr demo" --license MIT --trained_on "Simulated lungs alone: for trying only." \
		--calibration $(SHIPPED)/$(CALIBRATION)
	cp $(SHIPPED)/demo/*.nii.gz $(SHIPPED)/demo/posterior.safetensors $(SHIPPED)/demo/posterior.md src/microsr/data/demo/

lint: env
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/snakefmt --check Snakefile rules
	@if grep -nE '.{121}' Snakefile rules/*.smk; then echo "error: lines over 120 characters" >&2; exit 1; fi
	$(VENV)/bin/snakemake --lint
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy

docs: env
	$(VENV)/bin/python -m sphinx -W --keep-going -q docs docs/_build

schema: env
	$(VENV)/bin/python -m microsr.config.schema

PYTEST := $(VENV)/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations 25

# Validators whose own dependencies exclude those of requirements.lock, for tests of crates and of CITATION.cff.
validators: $(VENV)-validators/stamp

$(VENV)-validators/stamp: tests/validators/requirements.txt
	$(call make_environment,$(VENV)-validators)
	$(VENV)-validators/bin/python -m pip install --quiet --disable-pip-version-check -r tests/validators/requirements.txt
	@touch $@

test: env
	$(PYTEST)

test-all: env
	$(PYTEST) --nightly
	$(VENV)/bin/python tests/mutation/run.py

test-mutations: env
	$(VENV)/bin/python tests/mutation/run.py

archive: env
	$(VENV)/bin/python .ci/archive.py dist/microsr-$$($(VENV)/bin/python -c 'import microsr; print(microsr.__version__)').zip $(CRATES)

release-check: env validators
	$(VENV)/bin/python .ci/release_check.py $(TESTED)

# Finds a Python that is new enough and makes an empty environment $(1) with it.
define make_environment
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi; python=; \
	done; \
	if [ -z "$$python" ]; then \
		echo "error: Python 3.11 or newer is needed; install it, or name one: make PYTHON=/path/to/python3" >&2; exit 1; \
	elif ! $$python -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "error: $$python cannot make environments; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; \
	fi; \
	$$python -m venv --clear $(1)
endef

$(VENV)/requirements.stamp: requirements.lock
	$(call make_environment,$(VENV))
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock || { \
		echo "error: not all packages could be installed; the lines above say why. It needs a network, 3 GB of disk, and a Python" \
			"that the versions of requirements.lock exist for (3.11 does): make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@touch $@

$(VENV)/package.stamp: $(VENV)/requirements.stamp pyproject.toml
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

# A build of PyTorch for one kind of machine ("+cpu") is no part of its version here: pip takes the machine's own.
lock:
	$(call make_environment,$(VENV)-lock)
	$(VENV)-lock/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.in
	{ echo "# Made by \`make lock\` from requirements.in."; \
	  $(VENV)-lock/bin/python -m pip freeze --all --exclude pip --exclude wheel | sed 's/+cpu$$//'; } > requirements.lock
	for kind in cpu gpu; do { sed '/^    - .*==/d' envs/$$kind.yaml; \
	  sed -n 's/^[^#]/    - &/p' requirements.lock; } > envs/$$kind.new && mv envs/$$kind.new envs/$$kind.yaml; done
	rm -rf $(VENV)-lock
