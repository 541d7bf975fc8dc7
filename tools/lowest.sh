#!/usr/bin/env bash
# Proves the lower ends of the ranges in requirements.txt: installs them in a fresh environment, and answers a question.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
fresh="$(mktemp -d)"
trap 'rm -rf "$fresh"' EXIT
sed -E 's/>=([^,]+),<[^ ]+/==\1/' requirements.txt >"$fresh/lowest.txt"
python3 -m venv "$fresh/lowest"
"$fresh/lowest/bin/pip" install --quiet --disable-pip-version-check -r "$fresh/lowest.txt"
"$fresh/lowest/bin/python" -m experiments.generate --keep_ratio=0.2 --output_dir="$fresh/out"
