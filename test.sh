#!/usr/bin/env bash
# Runs the tests on the CPU. Usage: ./test.sh [argument of pytest ...]
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. tools/venv.sh requirements-test.txt

# Most of the time is XLA compiling small programs: quick code is enough for them. Tests that wait for other processes leave
# a core free, so three run at a time on two cores.
export JAX_PLATFORMS=cpu XLA_FLAGS="--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
exec .venv/bin/python -m pytest -q -n 3 tests "$@"
