# Sourced by run.sh and test.sh: makes .venv, and installs a requirements file with the versions of requirements_lock.txt.
# shellcheck shell=bash
# Usage: . tools/venv.sh REQUIREMENTS_FILE   (from the project's root)

unset PYTHONPATH PYTHONHOME PYTHONSAFEPATH XLA_FLAGS

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  for python in python3 python3.13 python3.12 python3.11 ''; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
  done
  [ -n "$python" ] || { echo "Python 3.11 or later is needed, as python3 on PATH" >&2; exit 1; }
  echo "Making .venv with $("$python" --version)"
  "$python" -m venv .venv
fi

stamp="$(cat requirements*.txt | cksum)"
if [ "$(cat ".venv/$1.cksum" 2>/dev/null)" != "$stamp" ]; then
  echo "Installing $1 into .venv (this takes minutes the first time)"
  # Constraints must not have extras, which the lock writes for Bazel.
  sed 's/\[.*\]//' requirements_lock.txt >.venv/constraints.txt
  .venv/bin/python -m pip install --quiet --no-compile --disable-pip-version-check -r "$1" -c .venv/constraints.txt
  echo "$stamp" >".venv/$1.cksum"
fi
