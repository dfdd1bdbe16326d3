#!/usr/bin/env bash
# Builds, tests, checks and benchmarks on a machine with an NVIDIA GPU, in one call of less than
# nine minutes and without a network. All stages run; the exit status says whether any failed.
#
#   OUT=folder bash bench/on_gpu.sh
#
# Needs nvcc and compute-sanitizer (of the CUDA that torch is built with), and in PYTHON's
# environment torch, triton, safetensors, setuptools, cmake, ninja, pybind11, hypothesis, pytest,
# pytest-benchmark and matplotlib; pytest-xdist and rich are used where they are there. Wheels of
# what is missing, and of what requirements-peers.txt lists, are taken from .whl/ if that exists.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
logs=$(realpath -m "${OUT:-build/on_gpu}")
limit=535
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$logs"

export PATH="$PATH:/usr/local/cuda/bin"
export PYTHONUNBUFFERED=1
unset TRITON_INTERPRET SNM_CPU_ISA OMP_WAIT_POLICY

failed=()

# stage NAME SECONDS LOG COMMAND...: runs a command within a time, appends to a log, goes on.
stage() {
  local name=$1 seconds=$2 log=$logs/$3 start=$SECONDS status=0
  local left=$((limit - SECONDS))
  shift 3
  echo "=== $name"
  if ((left < 5)); then
    echo "=== $name: no time left"
    failed+=("$name")
    return
  fi
  timeout --kill-after=5 $((seconds < left ? seconds : left)) "$@" 2>&1 |
    tee -a "$log" | tail -n 15 || status=$?
  if ((status)); then
    failed+=("$name")
  fi
  echo "=== $name: status $status after $((SECONDS - start)) s"
}

rm -f "$logs"/{build,tests,sanitizer,benchmarks}.log

if [[ -d .whl ]]; then
  stage rivals 20 build.log "$python" -m pip install --quiet --no-index --no-deps \
    --target "$scratch/site" .whl/*.whl
  export PYTHONPATH="$scratch/site${PYTHONPATH:+:$PYTHONPATH}"
fi

stage gpu 10 build.log nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
capability='import torch; print("{}.{}".format(*torch.cuda.get_device_capability()))'
if TORCH_CUDA_ARCH_LIST=$("$python" -c "$capability"); then
  export TORCH_CUDA_ARCH_LIST SNM_WITH_CUDA=ON
  stage build 150 build.log "$python" -m pip install --verbose --no-index \
    --no-build-isolation --no-deps --editable .
else
  failed+=(build)
fi
stage doctor 20 build.log "$python" -m snm doctor
both='import snm_kernels as s; b = s.backends(); print(b); assert b["cuda"][0] and b["triton"][0]'
stage backends 20 build.log "$python" -c "$both"

workers=()
if "$python" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("xdist") is None)'; then
  workers=(-n 8)
fi
stage tests 180 tests.log "$python" -m pytest tests -q "${workers[@]}" --durations=10

# Every allocation of its own, so that a step past a tensor's end is a step out of an allocation.
sanitize() {
  stage "$1" 40 sanitizer.log env PYTORCH_NO_CUDA_MEMORY_CACHING=1 \
    compute-sanitizer --tool "$1" --kernel-name kernel_substring=snm --report-api-errors no \
    --error-exitcode 1 "$python" bench/sanitized_run.py
}
sanitize memcheck

stage peers 60 benchmarks.log "$python" -m pytest bench/test_peers.py -q -k cuda
# It writes what it has by then; the sanitizer needs the rest.
measuring=$((limit - SECONDS < 410 ? limit - SECONDS - 110 : 300))
measuring=$((measuring < 10 ? 10 : measuring))
stage benchmarks $((measuring + 30)) benchmarks.log \
  "$python" -m snm bench --device cuda --limit $measuring --out "$logs/bench"
if [[ -z ${OUT:-} && -f $logs/bench/record.json ]]; then
  slug='import re, torch; print(re.sub(r"\W+", "-", torch.cuda.get_device_name()).lower())'
  mkdir -p bench/records/speed
  cp "$logs/bench/record.json" "bench/records/speed/$("$python" -c "$slug").json"
fi

sanitize racecheck
sanitize initcheck

if [[ -f $logs/bench/tables.md ]]; then
  cat "$logs/bench/tables.md"
fi
if ((${#failed[@]})); then
  echo "failed: ${failed[*]}"
  exit 1
fi
echo "all stages passed in $SECONDS s"
