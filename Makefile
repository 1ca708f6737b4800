# make demo    the whole study on the embedded data set
# make test    the tests, a file at a time on each core; SLOW=1 for all of them,
#              PYTEST_ARGS="-k store" for some
# make test-lowest, make test-newest
#              the same with the lowest and the newest versions that pyproject.toml allows and no
#              extra but `test`, each in an environment of its own (6 GB: torch with CUDA)
# make audit   whether the tested versions have known vulnerabilities
# make lint    style and types
# make bench   the benchmarks, with their tables in docs/performance.md; PARTS="recovery ppo" for some
# make docs    docs/config.yaml and docs/configuration.md, after a change in conf/
# Each sets up the virtual environment first, when that is missing or out of date.

PYTHON ?= python3
VENV ?= .venv
SLOW ?=
PYTEST_ARGS ?=
PARTS ?=

INSTALLED := $(VENV)/.installed

.PHONY: demo test test-lowest test-newest audit lint bench docs

demo: $(INSTALLED)
	$(VENV)/bin/irl-exp

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses auto --dist loadfile $(if $(SLOW),,-m "not slow") $(PYTEST_ARGS)

# uv, because pip can't be asked for the lowest versions.
test-lowest test-newest: test-%:
	$(PYTHON) -m venv --clear $(VENV)-$*
	$(VENV)-$*/bin/pip install --quiet uv
	$(VENV)-$*/bin/uv pip install --python $(VENV)-$* $(RESOLUTION-$*) --editable '.[test]'
	OMP_NUM_THREADS=1 $(VENV)-$*/bin/python -m pytest --numprocesses auto --dist loadfile -m "not slow" $(PYTEST_ARGS)

RESOLUTION-lowest := --resolution lowest-direct
RESOLUTION-newest :=

audit:
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/pip install --quiet pip-audit
	$(VENV)-audit/bin/pip-audit --disable-pip --no-deps --requirement constraints.txt

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(INSTALLED)
	$(VENV)/bin/python -m benchmarks $(PARTS)

docs: $(INSTALLED)
	$(VENV)/bin/python docs/generate.py

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --constraint constraints.txt --editable '.[dev]'
	touch $@
