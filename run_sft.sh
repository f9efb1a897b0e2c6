#!/usr/bin/env bash
# Train: data/sft_train.parquet -> checkpoints/rlvr_coding_model/phase1_sft_qwen7b_coder/global_step_N/
#
#   ./run_sft.sh                        verl 0.7.0's SFT trainer on 8 GPUs with the spec's values
#   LR=1e-5 ./run_sft.sh 4 optim.weight_decay=0.1
#                                       4 processes; a variable of the block below; Hydra overrides for verl
#   ./run_sft.sh --smoke                10 steps, batch 4, one process, console logger, a save every 5 steps
#   ./run_sft.sh 1 --preset small       few rows: batch, warm-up, saves and validation are fitted to them, and said
#   ./run_sft.sh --dry_run              checks, memory, time, disk and the command; nothing started, nothing written
#   TRAINER=engine ./run_sft.sh --stop_on nan
#                                       verl 0.9.1's engine trainer, without padding; ended at the first loss that is NaN
#
# Run it again after an interruption: it resumes at the last whole checkpoint. A finished job trains nothing.
# Exit code: 0 the last step is saved (or was already), 2 refused before anything was started, 130 Ctrl-C, others: training
# ended early.
set -euo pipefail
{  # bash reads a block whole before it runs it: a change of this file cannot disturb a training that is under way

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
log() { echo "[$(date '+%F %T')] $*"; }
die() { echo "error: $*" >&2; exit 2; }

help() {  # this file's head, then its variables
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
  printf '\nVariables, with their defaults (docs/02 has the keys of verl that they become):\n'
  sed -n '/^# ---- data/,/^command -v/{
    /^# ---- /{s///;s/^/\n/;p;b}
    s/^\(export \)\{0,1\}\([A-Z_]*\)="${[A-Z_]*:-$(.*)}" *# \(.*\)/  \2\n        \3/;t said
    s/^\(export \)\{0,1\}\([A-Z_]*\)="${[A-Z_]*:-\(.*\)}" *# \(.*\)/  \2=\3\n        \4/;t said
    b
    :said
    s/=\$HERE\//=/;p
  }' "${BASH_SOURCE[0]}"
}

DRY_RUN="" STOP_ON="" PRESET="" overrides=()
while [[ $# -gt 0 ]]; do
  word="$1"
  shift
  case "$word" in
    --stop_on) STOP_ON="${1:-nothing}"; shift $(($# > 0)) ;;
    --preset) PRESET="${1:-nothing}"; shift $(($# > 0)) ;;
    --dry_run) DRY_RUN=1 ;;
    --smoke)  # its own folder and always from step 0, so that it never mixes with the real run
      : "${NPROC:=1}" "${TRAIN_BATCH_SIZE:=4}" "${TOTAL_STEPS:=10}" "${SAVE_FREQ:=5}" "${TEST_FREQ:=5}" "${LOGGER:=console}"
      : "${EXPERIMENT_NAME:=smoke_test}" "${RESUME_MODE:=disable}" ;;
    -h | --help) help; exit 0 ;;
    -*) die "$word: unknown flag; --smoke, --preset small, --dry_run, --stop_on nan, --help are known" ;;
    *=* | "~"*) overrides+=("$word") ;;
    *[!0-9]*) die "'$word': neither a number of processes nor an override key=value; ./run_sft.sh 4 optim.weight_decay=0.1" ;;
    *) NPROC="$word" ;;
  esac
done
[[ -z "$STOP_ON" || "$STOP_ON" == nan ]] || die "--stop_on $STOP_ON: only nan is known"
[[ -z "$PRESET" || "$PRESET" == small ]] || die "--preset $PRESET: only small is known"
given=""
for name in TRAIN_BATCH_SIZE MICRO_BATCH_SIZE MAX_LENGTH WARMUP_RATIO SAVE_FREQ TEST_FREQ; do
  given+="${!name:+$name,}"
done

# ---- data
export TRAIN_FILE="${TRAIN_FILE:-$HERE/data/sft_train.parquet}"  # rows to train on, as prepare_sft_data.py writes them
export VAL_FILE="${VAL_FILE:-$HERE/data/sft_val.parquet}"  # rows for val/loss
export MAX_LENGTH="${MAX_LENGTH:-4096}"                    # tokens; longer rows are cut on the right, shorter ones padded
export TRAIN_BATCH_SIZE="${TRAIN_BATCH_SIZE:-128}"         # rows a step, over all processes
export MICRO_BATCH_SIZE="${MICRO_BATCH_SIZE:-2}"           # fsdp: rows a forward pass, each process
export MAX_TOKENS_PER_GPU="${MAX_TOKENS_PER_GPU:-16384}"   # engine: tokens a forward pass, each process; at least MAX_LENGTH
# ---- model
export MODEL_PATH="${MODEL_PATH:-Qwen/Qwen2.5-Coder-7B-Instruct}"  # a Hugging Face directory, or a name that was downloaded
export MODEL_DTYPE="${MODEL_DTYPE:-fp32}"                  # fp32 or bf16, of master weights and Adam's moments; compute is bf16
export GRADIENT_CHECKPOINTING="${GRADIENT_CHECKPOINTING:-True}"  # False: faster, 10-20 times the activations
export COMPILE="${COMPILE:-0}"                             # engine: 1: torch.compile each decoder layer; one to two minutes at the start
export ACTIVATION_MEMORY_BUDGET="${ACTIVATION_MEMORY_BUDGET:-0}"  # engine, COMPILE=1 with checkpointing: share of a layer's activations kept
# ---- optimizer
export LR="${LR:-2e-5}"                                    # learning rate after the warm-up; it falls along a cosine
export WARMUP_RATIO="${WARMUP_RATIO:-0.05}"                # share of all steps
# ---- trainer
export EPOCHS="${EPOCHS:-2}"                               # times that every row is trained on
export TOTAL_STEPS="${TOTAL_STEPS:-}"                      # stop after so many steps; the schedule still spans all epochs; empty: all
export SAVE_FREQ="${SAVE_FREQ:-500}"                       # steps from one checkpoint to the next; the last step is saved too
export TEST_FREQ="${TEST_FREQ:-500}"                       # steps from one val/loss to the next
export MAX_CKPT_TO_KEEP="${MAX_CKPT_TO_KEEP:-5}"           # checkpoints; verl deletes older ones
export BACKGROUND_SAVE="${BACKGROUND_SAVE:-0}"             # engine: 1: checkpoints go through memory (/dev/shm), training goes on meanwhile
export LOGGER="${LOGGER:-console,wandb}"                   # where metrics go, with commas between; offline where W&B has no login
export PROJECT_NAME="${PROJECT_NAME:-rlvr_coding_model}"   # W&B's project, and a folder in checkpoints/
export EXPERIMENT_NAME="${EXPERIMENT_NAME:-phase1_sft_qwen7b_coder}"  # W&B's run, and the folder below that one
export CKPT_DIR="${CKPT_DIR:-$HERE/checkpoints/$PROJECT_NAME/$EXPERIMENT_NAME}"  # folder of the global_step_N folders
export RESUME_MODE="${RESUME_MODE:-auto}"                  # auto: from the last whole checkpoint; disable: from step 0
# ---- machine
export TRAINER="${TRAINER:-}"                              # fsdp (verl 0.7.0's, the spec's) or engine (verl >= 0.7.1); empty: fsdp where it exists
export NPROC="${NPROC:-8}"                                 # processes on this node, one a GPU
export NNODES="${NNODES:-1}"                               # nodes
export NODE_RANK="${NODE_RANK:-0}"                         # this node's number, from 0
export MASTER_ADDR="${MASTER_ADDR:-}"                      # several nodes: the first one's address
export MASTER_PORT="${MASTER_PORT:-29500}"                 # several nodes: a free port there
export DEVICE="${DEVICE:-$([[ "$(nvidia-smi -L 2>/dev/null)" == GPU* ]] && echo cuda || echo cpu)}"  # cuda or cpu; default: cuda where nvidia-smi lists a GPU
export ALLOW_CHANGED_DATA="${ALLOW_CHANGED_DATA:-}"        # 1: resume although data or schedule differ from the first run's
OUTPUT_DIR="${OUTPUT_DIR:-$HERE/outputs}"                  # console logs go to logs/ in it
export WANDB_DIR="${WANDB_DIR:-$OUTPUT_DIR}"               # W&B's files go to wandb/ in it
export LOCK_WAIT="${LOCK_WAIT:-60}"                        # seconds to wait for another run in CKPT_DIR to end, and for the other nodes
# as run_eval_checkpoints.sh:
PYTHON="${PYTHON:-$([[ -x "$HERE/.venv/bin/python" ]] && echo "$HERE/.venv/bin/python" || echo python3)}"  # the interpreter that has verl; default: .venv's, else python3
command -v -- "$PYTHON" >/dev/null || die "PYTHON=$PYTHON: no such program; name the Python of the environment that has verl"
for folder in OUTPUT_DIR WANDB_DIR; do
  [[ ! -e "${!folder}" || -d "${!folder}" ]] || die "${!folder}: is a file; name a folder, which need not exist yet, with $folder"
done

export PYTHONPATH="$HERE/patches:$HERE${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONSAFEPATH=1  # a verl or phase1 in the current directory is not the one meant
if [[ -n "$PRESET" ]]; then
  fitted="$("$PYTHON" -m phase1.train --preset "$PRESET" --given "$given" -- "${overrides[@]}")"
  while IFS='=' read -r name value; do [[ -z "$name" ]] || export "$name=$value"; done <<<"$fitted"
fi
if [[ -n "$DRY_RUN" ]]; then exec "$PYTHON" -m phase1.train --dry_run -- "${overrides[@]}"; fi
"$PYTHON" -m phase1.train --dry_run -- "${overrides[@]}" >/dev/null  # what cannot run is refused before a file is written

argv_file="$(mktemp 2>/dev/null)" || die "${TMPDIR:-/tmp}: no file can be made there; make room, or set TMPDIR to another folder"
trap 'rm -f "$argv_file"' EXIT
logs="$OUTPUT_DIR/logs"
mkdir -p "$CKPT_DIR" "$WANDB_DIR" "$logs"
# torchrun inherits the lock: as long as it lives, the run counts as running, with or without this script.
exec 9>>"$CKPT_DIR/.train_node$NODE_RANK.lock"
if ! flock --nonblock 9; then
  log "another training run is writing to $CKPT_DIR: waiting up to $LOCK_WAIT s for it to end"
  flock --wait "$LOCK_WAIT" 9 || die "$CKPT_DIR: another training run is still writing here; stop it, or wait longer with LOCK_WAIT=seconds"
fi
"$PYTHON" -m phase1.train --argv_file "$argv_file" -- "${overrides[@]}"
[[ -s "$argv_file" ]] || exit 0  # finished before
mapfile -d '' -t command <"$argv_file"

log_file="$logs/sft_$(date '+%Y%m%d_%H%M%S').log"
ln -sfn "$(basename "$log_file")" "$logs/.latest.$$" && mv -Tf "$logs/.latest.$$" "$logs/latest"
log "training, console log in $log_file"
# If this script is killed, the kernel ends torchrun too; if it is asked to stop, it passes that on and waits for the end.
if command -v setpriv >/dev/null; then command=(setpriv --pdeathsig TERM "${command[@]}"); fi
run_file="$CKPT_DIR/train_run$([[ "$NODE_RANK" -eq 0 ]] || echo "_node$((10#$NODE_RANK))").json"
exec {console}> >(exec "$PYTHON" -m phase1.train.watch --log "$log_file" --run_file "$run_file" \
  --output_dir "$OUTPUT_DIR" --stop_on "$STOP_ON")
watch=$!
torchrun="" asked=""
for signal in INT TERM HUP; do
  # shellcheck disable=SC2064  # the signal's name of now
  trap "asked=$signal"'; log "stopping"; [[ -z "$torchrun" ]] || kill -TERM "$torchrun" 2>/dev/null || true' "$signal"
done
# The trainer's processes look whether torchrun lives, before the kernel does it for them (patches/phase1_resume.py).
(export PHASE1_LAUNCHER=$BASHPID; exec "${command[@]}") >&"$console" 2>&1 &
torchrun=$!
[[ -z "$asked" ]] || kill -TERM "$torchrun" 2>/dev/null || true  # asked before torchrun's number was known
while kill -0 "$torchrun" 2>/dev/null; do wait "$torchrun" || true; done  # a signal ends a wait before torchrun's end
status=0
wait "$torchrun" || status=$?  # of a process that has ended, bash keeps it
trap - INT TERM HUP
exec {console}>&-
if [[ $status -ne 0 ]]; then
  log "training $([[ -n "$asked" ]] && echo "was stopped" || echo "failed with status $status"); see $log_file"
  wait "$watch" || true
  "$PYTHON" -m phase1.train --stopped "$OUTPUT_DIR/train_metrics.jsonl" --log "$log_file" -- "${overrides[@]}" || true
  [[ "$asked" != INT ]] || exit 130
  exit "$status"
fi
wait "$watch" || true  # the last lines are on the screen and in the file
"$PYTHON" -m phase1.train --finished -- "${overrides[@]}"
exit
}
