#!/usr/bin/env bash
# A sweep on a GKE cluster of TPUs: one workload per shard. Needs xpk and an image of the Dockerfile for TPUs.
#
#   CLUSTER=hawk TYPE=v5litepod-16 IMAGE=... SHARDS=4 docs/examples/xpk.sh \
#       --command=evaluate --config=experiments/configs/qwen7b.py:native,slice --output_dir=/mnt/sweep
#
# The output directory must be storage that all workloads mount (xpk storage attach). A workload that was evicted resumes when
# this script is run again, and the last one to finish leaves the table of all points.
set -euo pipefail
for ((shard = 0; shard < SHARDS; shard++)); do
  xpk workload create --cluster="$CLUSTER" --workload="hawk-$shard" --tpu-type="$TYPE" --docker-image="$IMAGE" \
    --command="python -m experiments.sweep $(printf '%q ' "$@") --shard=$shard/$SHARDS --distributed"
done
