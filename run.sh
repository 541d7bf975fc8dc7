#!/usr/bin/env bash
# Asks the embedded model about the committed picture, with all visual tokens and with a fifth of them.
# Usage: ./run.sh [flag of experiments.generate ...]
# A --keep_ratio given here replaces the fifth. With no flags at all, the heads weigh what the study learned for the model.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
unset PYTHONPATH PYTHONHOME PYTHONSAFEPATH

# .venv with what requirements.txt asks for; test.sh does the same for requirements-test.txt.
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  for python in python3 python3.13 python3.12 python3.11 ''; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
  done
  [ -n "$python" ] || { echo "Python 3.11 or later is needed, as python3 on PATH" >&2; exit 1; }
  echo "Making .venv with $("$python" --version)"
  "$python" -m venv .venv
fi
stamp="$(cksum <requirements.txt)"
if [ "$(cat .venv/requirements.cksum 2>/dev/null)" != "$stamp" ]; then
  echo "Installing requirements.txt into .venv (the first time, this takes minutes)"
  .venv/bin/python -m pip install --quiet --no-compile --disable-pip-version-check -r requirements.txt
  echo "$stamp" >.venv/requirements.cksum
fi

[ $# -gt 0 ] || set -- --head_importance=experiments/results/qwen2_5_vl/learned.json
echo "== All visual tokens"
.venv/bin/python -m experiments.generate "$@" --keep_ratio=1 --output_dir=out/unpruned
echo "== Pruned by HAWK"
.venv/bin/python -m experiments.generate --keep_ratio=0.2 "$@" --output_dir=out/pruned
echo "Written to $PWD/out/unpruned and $PWD/out/pruned: result.json and kept_tokens.png"
