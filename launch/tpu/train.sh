#!/usr/bin/env bash
# A training run on a Cloud TPU pod slice: sets every host up once, then starts the same command on all of them.
#
#   TPU=my-pod ZONE=us-central2-b REPOSITORY=https://example.org/jaxseg.git \
#     launch/tpu/train.sh --config=configs/train.py:paper --workdir=/mnt/shared/runs/unet --data_dir=/mnt/shared/data
#
# The hosts need a folder that all of them see (Filestore over NFS, or a mounted disk) for --workdir. Given again, the
# command resumes from the last checkpoint; a pod that is taken away asks every process to stop, which saves.
set -euo pipefail
: "${TPU:?name of the TPU}" "${ZONE:?its zone}" "${REPOSITORY:?address to clone jaxseg from}"

arguments=$(printf '%q ' "$@")
gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="
  set -e
  [ -d jaxseg ] || git clone -q $(printf '%q' "$REPOSITORY") jaxseg
  cd jaxseg
  [ -x .venv/bin/python ] || python3 -m venv .venv
  .venv/bin/python -m pip install -q --require-hashes -r requirements.lock
  .venv/bin/python -m pip install -q --no-deps -e .
  # libtpu is not among the hashed requirements, so it is asked for by the version of JAX that is there
  .venv/bin/python -m pip install -q \"jax[tpu]==\$(.venv/bin/python -c 'import jax; print(jax.__version__)')\"
  JAX_COMPILATION_CACHE_DIR=\$PWD/.jax_cache .venv/bin/python -m launch.train --distributed $arguments"
