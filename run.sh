#!/usr/bin/env bash
# Asks the embedded model about the committed picture, with all visual tokens and with a fifth of them.
# Usage: ./run.sh [flag of experiments.generate ...]
# A --keep_ratio given here replaces the fifth. Without any flag, the head importance is the one that the study learned.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. tools/venv.sh requirements.txt

[ $# -gt 0 ] || set -- --head_importance=experiments/results/qwen2_5_vl/learned.json
echo "== All visual tokens"
.venv/bin/python -m experiments.generate "$@" --keep_ratio=1 --output_dir=out/unpruned
echo "== Pruned by HAWK"
.venv/bin/python -m experiments.generate --keep_ratio=0.2 "$@" --output_dir=out/pruned
echo "Written to $PWD/out/unpruned and $PWD/out/pruned: result.json and kept_tokens.png"
echo "To go on: source .venv/bin/activate"
