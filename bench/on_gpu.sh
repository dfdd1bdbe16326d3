#!/usr/bin/env bash
# Builds, tests, benchmarks and checks on a machine with an NVIDIA GPU, most valuable first, within
# eight minutes and without a network. A stage that fails or runs out of time stops no other; those
# that find no time left are cut. The exit status is 0 if every stage passed.
#
#   OUT=folder bash bench/on_gpu.sh
#
# OUT     takes at most eight files, each written before the next stage begins: summary.json (the
#         stages), build.log (build, doctor, backends), tests.log (tests, then the benchmark's
#         output), record.json, tables.md, roofline.svg, sanitizer.log, ncu.log. build/on_gpu if
#         unset; the record is then also put into bench/records/speed/.
# LIMIT   seconds that all stages together may take; 480 if unset.
# STAGES  those to run, such as "device build benchmarks"; all if unset.
# SUITES  of the benchmark, such as "network calls"; all if unset.
# PYTHON  python3 if unset. Its environment has torch, triton, numpy, safetensors, jinja2,
#         setuptools, cmake, ninja, pybind11, hypothesis, pytest, pytest-benchmark, matplotlib;
#         pytest-xdist and torchvision are used where they are there. Wheels of what is missing,
#         and of what requirements-peers.txt lists, are taken from .whl/ if that exists.
#
# On PATH or in NVIDIA's usual folders: nvidia-smi, nvcc of the CUDA that torch is built with,
# compute-sanitizer, ncu.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
out=$(realpath -m "${OUT:-build/on_gpu}")
limit=${LIMIT:-480}

# Seconds of each stage at most, 480 in all. The benchmark also takes what those before it leave.
wheels=10 gpu=5 device=20 build=110 doctor=25 backends=10 tests=90
benchmarks=45 sanitizer=120 profile=45
# From the interrupt on which a stage writes down what it has to its end, and for this script's own.
grace=10 closing=2

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$out"
rm -f "$out"/{summary.json,{build,tests,sanitizer,ncu}.log,record.json,tables.md,roofline.svg}

for folder in /usr/local/cuda/bin /opt/nvidia/nsight-compute/*; do
  PATH+=":$folder"
done
export PATH PYTHONUNBUFFERED=1
# Compilers' workers would compete with the tests' own.
export TORCHINDUCTOR_COMPILE_THREADS=1
unset TRITON_INTERPRET SNM_CPU_ISA OMP_WAIT_POLICY

stages=() not_passed=()

# left: seconds that a stage may still run.
left() { echo $((limit - SECONDS - grace - closing)); }

# note NAME STATUS SECONDS LIMIT: writes the summary anew.
note() {
  stages+=("{\"stage\": \"$1\", \"status\": \"$2\", \"seconds\": $3, \"limit\": $4}")
  if [[ $2 != passed ]]; then
    not_passed+=("$1: $2")
  fi
  local rows
  rows=$(printf ',\n  %s' "${stages[@]}")
  printf '{\n "limit": %d,\n "seconds": %d,\n "stages": [\n%s\n ]\n}\n' \
    "$limit" "$SECONDS" "${rows:2}" >"$out/summary.json"
  echo "=== $1: $2 after $3 of $4 s"
}

# wanted NAME: whether a stage is to run.
wanted() { [[ -z ${STAGES:-} || " $STAGES " == *" $1 "* ]]; }

# stage NAME SECONDS LOG COMMAND...: runs a command for so long at most, its output in a log.
stage() {
  local name=$1 seconds=$2 log=$out/$3 start=$SECONDS status=0 room before
  shift 3
  wanted "$name" || return 0
  room=$(left)
  seconds=$((seconds < room ? seconds : room))
  if ((seconds < 1)); then
    note "$name" cut 0 0
    return
  fi
  echo "=== $name" | tee -a "$log"
  before=$(wc -l <"$log")
  # An interrupt makes pytest print, and the benchmark write, what there is; whoever starts this
  # script may have it ignored. Into a file, since a pipe is held by processes that outlive a stage.
  timeout --signal=INT --kill-after="$grace" "$seconds" env --default-signal=INT "$@" \
    >>"$log" 2>&1 || status=$?
  tail -n "+$((before + 1))" "$log" | tail -n 15
  case $status in
    0) note "$name" passed $((SECONDS - start)) "$seconds" ;;
    124 | 137) note "$name" "out of time" $((SECONDS - start)) "$seconds" ;;
    *) note "$name" "failed with $status" $((SECONDS - start)) "$seconds" ;;
  esac
}

if [[ -d .whl ]]; then
  stage wheels "$wheels" build.log "$python" -m pip install --quiet --no-index --no-deps \
    --no-compile --target "$scratch/site" .whl/*.whl
  export PYTHONPATH="$scratch/site${PYTHONPATH:+:$PYTHONPATH}"
fi

stage gpu "$gpu" build.log nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
capability='
import sys, torch
name, numbers = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
print(name, *numbers)
open(sys.argv[1], "w").write("{}.{}".format(*numbers))
'
stage device "$device" build.log "$python" -c "$capability" "$scratch/capability"
if [[ -f $scratch/capability ]]; then
  TORCH_CUDA_ARCH_LIST=$(<"$scratch/capability")
  export TORCH_CUDA_ARCH_LIST SNM_WITH_CUDA=ON
  stage build "$build" build.log "$python" -m pip install --verbose --no-index \
    --no-build-isolation --no-deps --editable .
elif wanted build; then
  note build "failed without a device" 0 0
fi
stage doctor "$doctor" build.log "$python" -m snm doctor
both='import snm_kernels as s; b = s.backends(); print(b); assert b["cuda"][0] and b["triton"][0]'
stage backends "$backends" build.log "$python" -c "$both"

workers=()
if "$python" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("xdist") is None)'; then
  workers=(-n "$(nproc)" --dist worksteal)
fi
stage tests "$tests" tests.log "$python" -m pytest tests/gpu -q --triton subset "${workers[@]}" \
  --tb=short --maxfail=100 --durations=10

spare=$(left)
if wanted memcheck; then ((spare -= sanitizer)) || true; fi
if wanted profile; then ((spare -= profile)) || true; fi
benchmarks=$((benchmarks > spare ? benchmarks : spare))
room=$(left)
room=$((benchmarks < room ? benchmarks : room))
# By then it ends the part that runs, and draws its picture.
measuring=$((room > 40 ? room - 25 : room))
read -ra suites <<<"${SUITES:-}"
stage benchmarks "$benchmarks" tests.log \
  "$python" -m snm bench --device cuda --limit "$measuring" --out "$out" \
  ${suites[@]+--suites "${suites[@]}"}
if [[ -z ${OUT:-} && -f $out/record.json ]]; then
  slug='import re, torch; print(re.sub(r"\W+", "-", torch.cuda.get_device_name()).lower())'
  mkdir -p bench/records/speed
  cp "$out/record.json" "bench/records/speed/$("$python" -c "$slug").json"
fi

# Every allocation of its own, so that a step past a tensor's end is a step out of an allocation.
sanitizing=$SECONDS
for tool in memcheck racecheck initcheck; do
  stage "$tool" $((sanitizer - (SECONDS - sanitizing))) sanitizer.log \
    env PYTORCH_NO_CUDA_MEMORY_CACHING=1 \
    compute-sanitizer --tool "$tool" --target-processes application-only \
    --kernel-name kernel_substring=snm --report-api-errors no --print-limit 50 \
    --error-exitcode 1 "$python" bench/sanitized_run.py
done

metrics=(
  dram__throughput.avg.pct_of_peak_sustained_elapsed
  dram__bytes_read.sum
  dram__bytes_write.sum
  gpu__time_duration.sum
)
stage profile "$profile" ncu.log ncu --clock-control none --target-processes application-only \
  --kernel-name regex:snm_kernel --section SpeedOfLight --section MemoryWorkloadAnalysis \
  --section WarpStateStats --section Occupancy --section LaunchStats --print-details all \
  --metrics "$(IFS=, && echo "${metrics[*]}")" "$python" bench/profiled_run.py

if [[ -f $out/tables.md ]]; then
  cat "$out/tables.md"
fi
cat "$out/summary.json"
if ((${#not_passed[@]})); then
  printf 'not passed: %s\n' "${not_passed[@]}"
  exit 1
fi
echo "all stages passed in $SECONDS s"
