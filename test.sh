#!/usr/bin/env bash
# Runs the tests on the CPU. Usage: ./test.sh [argument of pytest ...]
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
unset PYTHONPATH PYTHONHOME PYTHONSAFEPATH XLA_FLAGS
export JAX_PLATFORMS=cpu

# .venv with what requirements-test.txt asks for; run.sh does the same for requirements.txt.
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  for python in python3 python3.13 python3.12 python3.11 ''; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
  done
  [ -n "$python" ] || { echo "Python 3.11 or later is needed, as python3 on PATH" >&2; exit 1; }
  echo "Making .venv with $("$python" --version)"
  "$python" -m venv .venv
fi
stamp="$(cat requirements.txt requirements-test.txt | cksum)"
if [ "$(cat .venv/requirements-test.cksum 2>/dev/null)" != "$stamp" ]; then
  echo "Installing requirements-test.txt into .venv (the first time, this takes minutes)"
  .venv/bin/python -m pip install --quiet --no-compile --disable-pip-version-check -r requirements-test.txt
  echo "$stamp" >.venv/requirements-test.cksum
fi

# Most of the time is XLA compiling small programs: quick code is enough for them, and two processes use two cores.
export XLA_FLAGS=--xla_backend_optimization_level=0
exec .venv/bin/python -m pytest -q -n 2 tests "$@"
