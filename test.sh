#!/usr/bin/env bash
# Runs the tests on the CPU. Usage: ./test.sh [argument of pytest ...]
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
. tools/venv.sh requirements-test.txt

# Most of the time is XLA compiling small programs: quick code is enough for them, and all tests and the processes that they
# start share what is compiled. Tests that wait for other processes leave a core free, so three run at a time on two cores.
export JAX_PLATFORMS=cpu XLA_FLAGS="--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
programs="$(mktemp -d)"
trap 'rm -rf "$programs"' EXIT
export JAX_COMPILATION_CACHE_DIR="$programs" JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
unset PYTHONDONTWRITEBYTECODE  # with it, every process compiles all modules that it imports
.venv/bin/python -m pytest -q -n 3 --dist=worksteal tests "$@"
