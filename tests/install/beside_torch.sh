#!/usr/bin/env bash
# Installs wheels, one after the other, into an environment that has torch and what the tests need,
# and runs the core of the tests on each outside the source tree: what knows torch, NumPy or Triton.
# Arithmetic has no part in that and is left to the whole suite: bulks, other instruction sets,
# chunks, what Triton's interpreter makes of wide blocks, how often machine code adds, and whether
# the sums of networks are exact.
#
#   tests/install/beside_torch.sh build/beside-torch-2.11.0 dist/wheels/*.whl
set -euo pipefail
tests=$(cd "$(dirname "$0")/.." && pwd)
venv=$(realpath -- "$1")
mapfile -t wheels < <(realpath -- "${@:2}")
unset PYTHONPATH
cd "$venv"
for wheel in "${wheels[@]}"; do
  echo "=== ${wheel##*/} in ${venv##*/}"
  bin/pip install --quiet --disable-pip-version-check --force-reinstall --no-deps "$wheel"
  bin/python "$tests/install/installed.py"
  bin/python -m pytest -q -n auto -p no:cacheprovider \
    "$tests"/install/test_{abi,build,loader,doctor}.py \
    "$tests"/op/test_{parity,counted,numpy,out,errors,compile}.py \
    "$tests"/op/test_running_max{,_errors,_triton}.py "$tests"/op/test_spike_conv{,_errors}.py \
    "$tests"/op/test_triton_{compiled,interpreted}.py "$tests"/convert/test_network_convert.py \
    "$tests"/network/test_{network_exact,files,packaged}.py \
    -k 'not in_bulk and not test_isa and not chunks and not computed_once and not sums_are_exact' \
    --deselect 'tests/op/test_triton_interpreted.py::test_interpreted_triton_equals_reference[wide]'
done
