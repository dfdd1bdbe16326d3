#!/usr/bin/env bash
# Installs wheels, one after the other, into an environment that has torch and what the tests need,
# and runs the core of the tests on each outside the source tree: what knows torch, NumPy or Triton.
#
#   tests/beside_torch.sh build/beside-torch-2.11.0 dist/wheels/*.whl
set -euo pipefail
tests=$(cd "$(dirname "$0")" && pwd)
venv=$(realpath -- "$1")
mapfile -t wheels < <(realpath -- "${@:2}")
unset PYTHONPATH
cd "$venv"
for wheel in "${wheels[@]}"; do
  echo "=== ${wheel##*/} in ${venv##*/}"
  bin/pip install --quiet --disable-pip-version-check --force-reinstall --no-deps "$wheel"
  bin/python "$tests/installed.py"
  bin/python -m pytest -q -n auto -p no:cacheprovider \
    "$tests"/test_{abi,build,loader,doctor,parity,counted,numpy,rule,out,steps,errors,compile}.py \
    "$tests"/test_running_max{,_errors,_triton}.py "$tests"/test_triton_{compiled,interpreted}.py \
    "$tests"/test_network_{convert,exact}.py "$tests"/test_files.py
done
