# make demo   convert the packaged network, print accuracy and speed, draw the curve
# make test   everything that has to pass before a change lands
# make wheel  build the wheel into dist/ and run it from there
# make bench  the benchmarks of this machine, into build/bench/

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check
WARNINGS_ARE_ERRORS := CMAKE_ARGS=-DCMAKE_COMPILE_WARNING_AS_ERROR=ON
# Threads that wait must not spin: cores may be shared.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: demo test wheel bench build build-strict clean

demo: build
	$(BIN)/snm demo

build: .venv/installed
	$(INSTALL) --no-build-isolation --no-deps --editable .

build-strict: .venv/installed
	$(WARNINGS_ARE_ERRORS) $(INSTALL) --no-build-isolation --no-deps --editable .

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) --upgrade pip
	$(INSTALL) --requirement requirements.txt
	touch $@

.venv/peers: .venv/installed
	$(INSTALL) --no-deps --requirement requirements-peers.txt
	touch $@

test: build-strict .venv/peers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python bench/render.py --check
	$(BIN)/python bench/machine_code.py --check
	$(BIN)/python -m pytest -n auto tests bench/test_peers.py

wheel: .venv/installed
	rm -rf dist
	$(WARNINGS_ARE_ERRORS) $(BIN)/pip wheel --quiet --no-build-isolation --no-deps --wheel-dir dist .
	$(INSTALL) --no-deps --target dist/site dist/snm_kernels-*.whl
	cd dist && PYTHONPATH=site ../$(BIN)/python ../tests/installed.py "$(CURDIR)/dist/site"

bench: build .venv/peers
	$(BIN)/snm bench --out build/bench

clean:
	rm -rf .venv build dist
