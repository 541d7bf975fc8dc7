#!/usr/bin/env bash
# A sweep under Slurm: every task of the array runs its share of the points, on one GPU. From the project's root:
#
#   sbatch --array=0-11 docs/examples/slurm.sh --command=evaluate --config=experiments/configs/qwen7b.py:native \
#       --output_dir=/shared/sweep
#
# The tasks must see the same output directory. A task that was killed resumes when it is submitted again, and the last one to
# finish leaves the table of all points. For a model on several GPUs, ask for them here: each task uses all that it gets.
#SBATCH --job-name=hawk
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=08:00:00
#SBATCH --requeue
set -euo pipefail
exec srun .venv/bin/python -m experiments.sweep "$@" --shard="$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
