#!/usr/bin/env bash
# Set up .venv, then run the linters and the tests. Arguments go to pytest.
#
#   bash run_tests.sh                       # everything, as CI does
#   bash run_tests.sh -m "not slow"         # only the fast ones
#   bash run_tests.sh tests/test_files.py -k torn
set -euo pipefail

HERE="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
VENV="${VENV:-$HERE/.venv}"
WORKERS="${WORKERS:-2}"  # test processes; one file's tests stay in one process

cd "$HERE"
VENV="$VENV" bash setup_cpu.sh
"$VENV/bin/ruff" check .
if command -v shellcheck >/dev/null; then git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck; else echo "shellcheck is not installed: skipped"; fi
exec "$VENV/bin/python" -m pytest -n "$WORKERS" --dist loadfile "$@"
