#!/usr/bin/env bash
# Make .venv, the CPU environment of run_demo.sh and run_tests.sh: Python packages, bubblewrap, the verl patch.
# Both call it; a second call finds everything in place and takes a moment.
#
#   bash setup_cpu.sh
#   REQUIREMENTS=requirements-latest-cpu.txt VENV=$PWD/.venv-latest bash setup_cpu.sh
#                                           the second one, of verl 0.9.1 and transformers 5
#
# Exit 0 ready, 2 something is missing that it cannot install (it says what and how).
set -euo pipefail

HERE="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
VENV="${VENV:-$HERE/.venv}"
REQUIREMENTS="${REQUIREMENTS:-requirements-cpu.txt}"                     # a file beside this script, every package pinned
PYTHON3="${PYTHON3:-}"                                                   # the interpreter to build on: 3.11 or 3.12
TORCH_INDEX="${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}"       # CPU builds; PyPI's own pull gigabytes of CUDA

log() { printf '%(%F %T)T setup: %s\n' -1 "$*"; }
fail() { log "$*" >&2; exit 2; }

as_root() {  # apt as root, through sudo where that asks nothing, else not at all
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo -n "$@"; else return 1; fi
}
apt_install() {
    command -v apt-get >/dev/null || return 1
    as_root apt-get -qq update >/dev/null 2>&1 || true  # a stale list may still do
    DEBIAN_FRONTEND=noninteractive as_root apt-get -qq -y install "$@" >/dev/null 2>&1
}

if [ -z "$PYTHON3" ]; then
    for candidate in python3 python3.11 python3.12; do
        version="$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)"
        case "$version" in 3.11 | 3.12) PYTHON3="$candidate" && break ;; esac
    done
fi
[ -n "$PYTHON3" ] || fail "no Python 3.11 or 3.12 on PATH; install one, or name it: PYTHON3=/path/to/python3.11 bash setup_cpu.sh"

if ! command -v bwrap >/dev/null; then
    log "installing bubblewrap, which the judge's sandbox is made of"
    apt_install bubblewrap || fail "bubblewrap is missing and cannot be installed from here; as root: apt-get install bubblewrap"
fi

[ -f "$HERE/$REQUIREMENTS" ] || fail "$HERE/$REQUIREMENTS: no such file; REQUIREMENTS is requirements-cpu.txt or requirements-latest-cpu.txt"
ready="$VENV/ready-$(cat "$HERE/$REQUIREMENTS" "$HERE/setup_cpu.sh" | sha256sum | cut -c1-16)"
if [ ! -e "$ready" ]; then
    if [ -d "$VENV" ] && [ ! -e "$VENV/.made-by-setup_cpu" ]; then
        fail "$VENV is an environment that this script did not make and will not replace; choose another: VENV=$HERE/.venv-cpu"
    fi
    log "making $VENV with $("$PYTHON3" --version): about 2 GB, a few minutes"
    rm -rf "$VENV"
    mkdir -p "$VENV" && touch "$VENV/.made-by-setup_cpu"
    if ! "$PYTHON3" -m venv "$VENV" 2>/dev/null; then  # Debian keeps ensurepip in a package of its own
        package="$("$PYTHON3" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
        apt_install "$package" || fail "python venv is missing; as root: apt-get install $package"
        "$PYTHON3" -m venv "$VENV"
    fi
    # One retry: where that index cannot be reached, the release comes from the indexes pip is configured with.
    "$VENV/bin/pip" install -q --disable-pip-version-check --retries 1 --extra-index-url "$TORCH_INDEX" torch==2.13.0
    "$VENV/bin/pip" install -q --disable-pip-version-check --no-deps -r "$HERE/$REQUIREMENTS"
    touch "$ready"
fi
"$VENV/bin/python" "$HERE/patches/apply_verl_patch.py"
log "ready: $("$VENV/bin/python" --version), $(bwrap --version)"
