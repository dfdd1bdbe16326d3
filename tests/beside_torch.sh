#!/usr/bin/env bash
# Installs wheels, one after the other, beside a version of torch and tests each outside the source
# tree. The environment stays in build/, so that a second run downloads nothing.
#
#   tests/beside_torch.sh 2.11.0 dist/wheels/*.whl
set -euo pipefail
tests=$(cd "$(dirname "$0")" && pwd)
torch=$1
mapfile -t wheels < <(realpath -- "${@:2}")
venv=$tests/../build/beside-torch-$torch
if [[ ! -e $venv/complete ]]; then
  "${PYTHON:-python3}" -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check "torch==$torch" triton numpy \
    safetensors hypothesis pytest pytest-xdist
  touch "$venv/complete"
fi
unset PYTHONPATH
cd "$venv"
for wheel in "${wheels[@]}"; do
  echo "=== ${wheel##*/} beside torch $torch"
  bin/pip install --quiet --disable-pip-version-check --force-reinstall --no-deps "$wheel"
  bin/python "$tests/installed.py"
  bin/python -m pytest -q -n auto -p no:cacheprovider \
    "$tests"/test_{abi,build,loader,doctor,parity,numpy,errors}.py
done
