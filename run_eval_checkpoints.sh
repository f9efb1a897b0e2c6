#!/usr/bin/env bash
# Evaluate every checkpoint that has no complete evaluation yet, keep the best one, and write outputs/best_checkpoint.json.
# By hand, in a loop, or from cron; a second start while one is at work says so and exits 0.
#
#   bash run_eval_checkpoints.sh                             # the contract's checkpoints and data
#   bash run_eval_checkpoints.sh --dry_run                   # what would be done, and why the rest is skipped
#   bash run_eval_checkpoints.sh --watch 600 --gpus 7 --phase0_metrics outputs/phase0/metrics.json
#                                                            # beside the training, with an early warning
#   bash run_eval_checkpoints.sh --steps 500 --wandb_project rlvr_coding_model
#                                                            # flags it does not know go to phase1_eval.py
# All flags: --help. What they do, and which files they write: docs/04.
#
# Exit 0 done, 1 a checkpoint could not be evaluated or is worse than Phase 0, 2 bad input, busy GPUs, no disk space.
set -euo pipefail

HERE="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
PYTHON="${PYTHON:-$([[ -x "$HERE/.venv/bin/python" ]] && echo "$HERE/.venv/bin/python" || echo python3)}"  # as run_sft.sh
if ! command -v -- "$PYTHON" >/dev/null; then
    echo "error: PYTHON=$PYTHON: no such program; make $HERE/.venv, or name the Python of another environment" >&2
    exit 2
fi
CKPT_DIR="${CKPT_DIR:-$HERE/checkpoints/rlvr_coding_model/phase1_sft_qwen7b_coder}"
OUTPUT_DIR="${OUTPUT_DIR:-$HERE/outputs}"
MANIFEST_DIR="${MANIFEST_DIR:-$HERE/data/manifests}"

log() { printf '%(%F %T)T %s\n' -1 "$*"; }

log "checkpoints in $CKPT_DIR, evaluations in $OUTPUT_DIR"
export PYTHONPATH="$HERE${PYTHONPATH:+:$PYTHONPATH}"  # from any working directory, cron's too
export PYTHONSAFEPATH=1  # even from that of another checkout
exec "$PYTHON" -u -m phase1.checkpoints evaluate --checkpoint_dir "$CKPT_DIR" --output_dir "$OUTPUT_DIR" \
    --manifest_dir "$MANIFEST_DIR" "$@"
