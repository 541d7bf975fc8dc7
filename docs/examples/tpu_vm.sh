#!/usr/bin/env bash
# Runs a command on all hosts of a TPU slice, which it makes if there is none. Needs gcloud. From the project's root:
#
#   ZONE=us-west4-a TYPE=v5litepod-16 VERSION=v2-alpha-tpuv5-lite docs/examples/tpu_vm.sh hawk \
#       experiments.generate --config=experiments/configs/qwen2_5_vl.py:size=32b,slice
#
# All hosts run the same command, and the first one's output directory holds the results; for `experiments.evaluate` it must
# be a directory that all hosts see, such as a mounted bucket. Afterwards: gcloud compute tpus tpu-vm delete hawk --zone=...
set -euo pipefail
name=$1
shift
tpu() { gcloud compute tpus tpu-vm "$1" "$name" --zone="$ZONE" "${@:2}"; }

tpu describe >/dev/null 2>&1 || tpu create --accelerator-type="$TYPE" --version="$VERSION"
git archive --output=/tmp/hawk.tar.gz HEAD
gcloud compute tpus tpu-vm scp /tmp/hawk.tar.gz "$name:" --zone="$ZONE" --worker=all
# The images of TPU VMs have Python 3.10; uv brings one that JAX takes.
tpu ssh --worker=all --command="mkdir -p hawk && tar -xzf hawk.tar.gz -C hawk && cd hawk &&
  python3 -m pip install --quiet --user uv && python3 -m uv venv --quiet --clear --python=3.11 .venv &&
  sed 's/\[.*\]//' requirements_lock.txt >constraints.txt &&
  python3 -m uv pip install --quiet --python=.venv -r requirements.txt 'jax[tpu]' -c constraints.txt"
tpu ssh --worker=all --command="cd hawk && .venv/bin/python -m $(printf '%q ' "$@") --distributed"
