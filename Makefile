# make demo   convert the packaged network, print accuracy and speed, draw the curve
# make test   everything that has to pass before a change lands
# make test-oldest  the core of the tests beside the oldest torch, for which the CPU library and what
#             of the CUDA library knows torch are compiled; in build/oldest, downloads 3 gigabytes
# make wheel  build the wheel into dist/ and run it from there
# make docs   the documentation, into build/site/; what is broken is an error
# make report  what the packaged network sends and costs: a table, and a page in build/report.html
# make bench  the benchmarks of this machine, into build/bench/
# make sdist  the source distribution, into dist/
# make wheels       a manylinux wheel for the CPU and, where nvcc is, one for its CUDA, into
#                   dist/wheels/; CUDACXX=/path/to/nvcc chooses the CUDA
# make wheels-test  each of those wheels beside the versions of torch in TORCHES, each in an
#                   environment of its own in build/; downloads gigabytes

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check
WARNINGS_ARE_ERRORS := CMAKE_ARGS=-DCMAKE_COMPILE_WARNING_AS_ERROR=ON
# Threads that wait must not spin: cores may be shared.
export OMP_WAIT_POLICY ?= PASSIVE

CUDACXX ?= $(shell command -v nvcc)
TORCHES ?= 2.11.0 2.13.0
PIP_WHEEL := $(WARNINGS_ARE_ERRORS) $(BIN)/pip wheel --quiet --no-build-isolation --no-deps
# torch brings these, and the driver brings libcuda.
AUDITWHEEL := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --exclude 'libtorch*.so' \
	--exclude 'libc10*.so' --exclude 'libcudart.so.*' --exclude 'libcuda.so.*'

# The environment of `make test-oldest`.
OLDEST := build/oldest
IN_OLDEST := PATH="$(CURDIR)/$(OLDEST)/bin:$$PATH"
OLDEST_SITE = $(shell $(OLDEST)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
CUDA_OPS := $(patsubst %,CMakeFiles/snm_cuda.dir/%.o,$(wildcard csrc/cuda/*_op.cu))

.PHONY: demo test test-oldest docs report wheel wheels wheels-test sdist bench build build-strict clean

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

.venv/peers: .venv/installed requirements-peers.txt
	$(INSTALL) --no-deps --requirement requirements-peers.txt
	touch $@

test: build-strict .venv/peers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python bench/render.py --check
	$(BIN)/python bench/machine_code.py --check
	$(BIN)/python -m pytest -n auto tests

$(OLDEST)/installed: requirements-oldest.txt
	rm -f $@
	python=$$(.ci/oldest_python) && "$$python" -m venv --clear $(OLDEST)
	$(OLDEST)/bin/pip install --quiet --disable-pip-version-check --no-compile \
		--requirement $<
	touch $@

test-oldest: $(OLDEST)/installed
	rm -rf $(OLDEST)/wheels
	$(IN_OLDEST) SNM_WITH_CUDA=OFF $(WARNINGS_ARE_ERRORS) $(OLDEST)/bin/pip wheel --quiet \
		--no-build-isolation --no-deps --wheel-dir $(OLDEST)/wheels .
	$(IN_OLDEST) cmake -S . -B $(OLDEST)/cuda -G Ninja -DCMAKE_COMPILE_WARNING_AS_ERROR=ON \
		-DSNM_WITH_CUDA=ON -DSNM_CUDA_ARCHITECTURES=9.0 -DSNM_TORCH_DIR=$(OLDEST_SITE)/torch \
		-DPython_EXECUTABLE=$(CURDIR)/$(OLDEST)/bin/python \
		-Dpybind11_DIR=$(OLDEST_SITE)/pybind11/share/cmake/pybind11
	$(OLDEST)/bin/ninja -C $(OLDEST)/cuda $(CUDA_OPS)
	tests/install/beside_torch.sh $(OLDEST) $(OLDEST)/wheels/*.whl

.venv/docs: .venv/installed requirements-docs.txt
	$(INSTALL) --requirement requirements-docs.txt
	touch $@

docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

report: build
	mkdir -p build
	$(BIN)/snm report demo --timesteps 8 --diagnose --out build/report.html --out build/report.json
	ls -l build/report.html build/report.json

wheel: .venv/installed
	rm -rf dist/site dist/*.whl build/wheel
	$(PIP_WHEEL) --wheel-dir build/wheel .
	$(AUDITWHEEL) --wheel-dir dist build/wheel/*.whl
	$(BIN)/python tests/install/wheel.py dist/*.whl
	$(INSTALL) --no-deps --target dist/site dist/*.whl
	cd dist && PYTHONPATH="$$PWD/site" ../$(BIN)/python ../tests/install/installed.py "$$PWD/site"

wheels: .venv/installed
	rm -rf dist/wheels build/wheels
	SNM_WITH_CUDA=OFF $(PIP_WHEEL) --wheel-dir build/wheels .
ifneq ($(CUDACXX),)
	release=$$("$(CUDACXX)" --version | sed -n 's/.*release \([0-9]*\)\.\([0-9]*\).*/\1\2/p') && \
	CUDACXX="$(CUDACXX)" SNM_WITH_CUDA=ON SNM_LOCAL_VERSION="cu$$release" \
		$(PIP_WHEEL) --wheel-dir build/wheels .
endif
	for wheel in build/wheels/*.whl; do $(AUDITWHEEL) --wheel-dir dist/wheels "$$wheel" || exit; done
	$(BIN)/python tests/install/wheel.py dist/wheels/*.whl

build/beside-torch-%/installed:
	"$(PYTHON)" -m venv --clear $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check torch==$* triton numpy safetensors \
		hypothesis pytest pytest-xdist
	touch $@

wheels-test: $(TORCHES:%=build/beside-torch-%/installed)
	for torch in $(TORCHES); do \
		tests/install/beside_torch.sh build/beside-torch-$$torch dist/wheels/*.whl || exit; \
	done

sdist: .venv/installed
	rm -f dist/*.tar.gz
	$(BIN)/python -m build --quiet --sdist --no-isolation --outdir dist .

bench: build .venv/peers
	$(BIN)/snm bench --out build/bench

clean:
	rm -rf .venv build dist
