# Two commands: `make demo` and `make test`. Each sets up its own virtual environment first.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check -q install --no-deps  # locks name everything: nothing to resolve
# uv takes a quarter of pip's time, but knows nothing of pip's own settings (a mirror, say): where it fails, pip goes on
install = $(VENV)/bin/uv pip install -q --python $(RUN) --no-deps $(1) || $(PIP) --no-compile $(1)
TORCH ?= torch>=2.4  # what `make test-torch` installs, as torch==2.13.0+cpu where there is such a build
NNUNET ?= dynamic-network-architectures>=0.4  # and nnU-Net's networks, whose U-Nets need nothing else of what it names

export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.jax_cache
export OPENBLAS_NUM_THREADS ?= 1  # numpy's products here are small, and its threads fight with XLA's
unexport PYTHONDONTWRITEBYTECODE  # dozens of processes import the same packages

STUDIES := border_shortcut overlay_shortcut segmentation_ability skip_pruning distortion

.PHONY: help demo demos test test-slow test-torch faults check notebooks lock clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime  ## train two small U-Nets on embedded images, measure the border shortcut, write runs/demo/report.html
	$(RUN) -m launch.study --config=configs/border_shortcut.py:demo --workdir=runs/demo

demos: $(VENV)/.dev  ## all studies in their demo size and an audit, each with a report in runs/NAME, and whether reports and results agree
	for study in $(STUDIES); do \
	  $(RUN) -m launch.study --config=configs/$$study.py:demo --workdir=runs/$$study || exit; \
	done
	$(RUN) -m launch.audit --run=runs/border_shortcut/runs/unet_zero_original --workdir=runs/audit
	JAXSEG_REPORTS=runs $(RUN) -m pytest -q tests/report/test_agreement.py tests/report/test_browser.py

test: $(VENV)/.dev check  ## lint, types, import contract, tests, and the study in its smallest size
	$(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: $(VENV)/.dev  ## the tests that take minutes
	$(RUN) -m pytest -n 2 -m slow

test-torch: $(VENV)-torch/.torch  ## the tests beside PyTorch, on reference numbers and on real images, in an environment of their own
	$(VENV)-torch/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "torch or given"

faults: $(VENV)/.dev  ## whether the tests notice faults that are put into a copy of the package
	$(RUN) tests/faults.py

check: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

notebooks: $(VENV)/.dev  ## make colab/*.ipynb from the sources beside them
	$(RUN) -m colab.build

lock: | $(VENV)/bin/python  ## resolve requirements.lock and requirements-dev.lock anew
	$(VENV)/bin/uv pip compile --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
	  pyproject.toml -o requirements.lock
	$(VENV)/bin/uv pip compile --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
	  -c requirements.lock --extra dev pyproject.toml -o requirements-dev.lock

clean:  ## remove environments and caches; runs/ and data/ stay
	rm -rf .venv .venv-torch .jax_cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v[:2] <= (3, 13) else f"error: Python {v[0]}.{v[1]} found, 3.11 to 3.13 needed; name one with make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/[^\]$$/p' requirements-dev.lock | $(PIP) --require-hashes -r /dev/stdin || true

$(VENV)/.runtime: requirements.lock pyproject.toml | $(VENV)/bin/python
	$(call install,--require-hashes -r requirements.lock)
	$(call install,-e .)
	touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(VENV)/bin/python
	$(call install,--require-hashes -r requirements-dev.lock)
	$(call install,-e .)
	touch $@ $(VENV)/.runtime

$(VENV)-torch/.torch: requirements-dev.lock pyproject.toml
	$(MAKE) VENV=$(VENV)-torch $(VENV)-torch/.dev
	$(VENV)-torch/bin/python -m pip --disable-pip-version-check -q install "$(strip $(TORCH))"
	$(VENV)-torch/bin/python -m pip --disable-pip-version-check -q install --no-deps "$(strip $(NNUNET))"
	touch $@
