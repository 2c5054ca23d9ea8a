# `make demo` and `make test` are all that a newcomer needs; both call `make setup`.
PYTHON ?= python3
PINS ?= workflows/envs/cpu-py311.txt
PIP_ARGS ?=
STUDY ?= workflows/studies/demo.yaml
override export STUDY := $(value STUDY)
BIN := .venv/bin
PATH := $(CURDIR)/$(BIN):$(PATH)
export PATH
# Compiled code is kept whatever the shell says, or each of many short processes compiles ours again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup pack demo test test-fuzz test-kill test-review test-slurm test-nnunet test-demo nnunet-env slurm-up slurm-down bench-data bench-scale bench-train bench-segmentation bench-alarms bench-continual bench-review check docs format schema clean help

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/:/'

setup: .venv/.ready ## Make .venv with the pinned packages, and fetch the viewer of reviews (PIP_ARGS="..." goes to pip)

.venv/.ready: pyproject.toml $(PINS) ssl_pipeline/review/niivue.py
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make setup PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(PINS) $(PIP_ARGS) -e '.[all]'
	$(BIN)/python -m ssl_pipeline.review.niivue $(PIP_ARGS)
	touch $@

pack: setup ## Pack .venv into one archive, for file systems with a limit on files
	workflows/envs/pack.sh

demo: setup ## Run the demo study here, from raw scans to build/demo/report/report.html
	@snakemake --profile local --quiet rules progress --config "study=$$STUDY"
	@page=$$(python -m stages locate --config "$$STUDY") && echo "The report is $$page"

test: setup ## All tests but the marked slow groups
	OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile \
	  --no-loadscope-reorder -m "not kill and not slurm and not browser and not nnunet and not demo"

test-fuzz: setup ## Read 1,000 mutated files of each format; send 10,000 odd requests to the page
	FUZZ=1000 python -m pytest --timeout 3600 -k mutated tests/volumes/test_bad_input.py
	FUZZ=10000 python -m pytest tests/review/test_fuzz.py

test-kill: setup ## Kill real runs and compare the weights; measure memory over a long training
	KILLS=20 python -m pytest -m kill

test-review: setup ## Work the page of a review in an installed Chromium, by keys alone
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(PINS) $(PIP_ARGS) -e '.[all,browser]'
	python -m pytest -m browser -rs tests/review

test-nnunet: setup nnunet-env ## Train real nnU-Net from an exported encoder
	python -m pytest -m nnunet

test-demo: demo ## Run the demo; its networks find organs in a patient not trained on
	python -m pytest -m demo tests/workflows

test-slurm: setup ## Break a real SLURM on this machine and compare the weights
	python -m pytest -m slurm -rs tests/slurm

slurm-up: ## Start a SLURM on this machine (as root it installs Debian's packages)
	tests/slurm/up.sh

slurm-down: ## Stop it and remove its folder
	tests/slurm/down.sh

bench-data: setup ## Preprocessing and crops against peers, as ratios (installs them)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(PINS) $(PIP_ARGS) -e '.[all,bench]'
	python -m tests.bench.data

bench-scale: setup ## Starts and restarts with 100 to 100,000 volumes
	python -m tests.bench.scale

bench-train: setup ## Training steps against peers, and from store to step (installs them)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(PINS) $(PIP_ARGS) -e '.[all,bench]'
	python -m tests.bench.train

bench-segmentation: setup nnunet-env ## Segmentation beside real nnU-Net and MONAI (ARGS="--tiny": minutes, not hours)
	python -m tests.bench.segmentation $(ARGS)

nnunet-env: .venv-nnunet/.ready ## Make .venv-nnunet, for nnU-Net's pins are not the project's

.venv-nnunet/.ready: $(PINS) ssl_pipeline/torchvision_compat.py
	test -x .venv-nnunet/bin/python || $(PYTHON) -m venv .venv-nnunet
	.venv-nnunet/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) \
	  nnunetv2==2.8.1 $$(grep -E '^torch(vision)?==' $(PINS))
	packages=$$(.venv-nnunet/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	  cp ssl_pipeline/torchvision_compat.py "$$packages" && \
	  echo 'import torchvision_compat' > "$$packages/torchvision_compat.pth"
	touch $@

bench-alarms: setup ## Diagnoses of deliberately broken and of sound pretraining runs
	python -m tests.bench.alarm_rates

bench-continual: setup ## Errors of the gate of promotions, sabotages before it; what is forgotten with and without replay; false alarms of drift
	python -m tests.bench.continual

bench-review: setup ## Waits of a reader's page in Chromium; damaged logs, readers' agreement, odd requests
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(PINS) $(PIP_ARGS) -e '.[all,browser]'
	python -m tests.bench.review

check: setup ## Style, types, imports, spelling, workflow, schema
	ruff check .
	ruff format --check .
	mypy
	lint-imports
	codespell
	snakefmt --check Snakefile workflows
	snakemake --lint
	for study in workflows/studies/*.yaml; do python -m stages config --config "$$study" || exit 1; done
	for study in $$(grep -L encoders: workflows/studies/*.yaml); do \
	  SSL_PIPELINE_DATA=$${SSL_PIPELINE_DATA:-/nonexistent} snakemake -n --quiet --profile local --config "study=$$study" || exit 1; done
	snakemake -n --quiet --profile slurm
	python -m stages config --schema | diff - workflows/studies/schema.json

docs: setup ## Build the documentation into build/docs; a broken link is an error
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

format: setup ## Put code in the project's style
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflows

schema: setup ## Write the JSON schema that editors complete studies with
	python -m stages config --schema > workflows/studies/schema.json
