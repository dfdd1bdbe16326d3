#!/usr/bin/env bash
# Makes a CUDA 13.0 toolkit, as far as the build needs one, of NVIDIA's Python packages in a folder.
#
#   .ci/cuda13.sh /opt/cuda    then CUDACXX=/opt/cuda/nvidia/cu13/bin/nvcc make wheels
set -euo pipefail
folder=$1
"${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --no-deps \
  --target "$folder" nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 \
  nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
cd "$folder/nvidia/cu13"
# What a toolkit's own installer lays out so.
chmod +x bin/* nvvm/bin/*
ln -sfn lib lib64
ln -sfn libcudart.so.13 lib/libcudart.so
