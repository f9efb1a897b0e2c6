#!/usr/bin/env bash
# The whole phase on a CPU, end to end, in minutes: a small embedded model and embedded data, the real scripts.
#   raw JSONL -> Parquet -> verl SFT -> evaluation of every checkpoint -> best -> final evaluation -> report -> hand-off
#
#   bash run_demo.sh                        # on a fresh machine too: it sets itself up first
#   DEMO_DIR=/tmp/demo bash run_demo.sh     # elsewhere than outputs/demo
#
# After a kill at any moment, run it again: it goes on where it was. Delete outputs/demo to start over.
# Exit 0 done, 1 a check failed, 2 bad input or environment.
set -euo pipefail
[ $# = 0 ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit 2; }  # it takes none: --help, say

HERE="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
VENV="${VENV:-$HERE/.venv}"
DEMO_DIR="${DEMO_DIR:-$HERE/outputs/demo}"
NPROC="${NPROC:-2}"  # training processes

log() { printf '\n%(%F %T)T demo: %s\n' -1 "$*"; }
say_how_to_go_on() { local code=$?; [ "$code" = 0 ] || log "stopped with exit code $code; run it again to go on from here"; }
trap say_how_to_go_on EXIT

VENV="$VENV" bash "$HERE/setup_cpu.sh"
export PYTHON="$VENV/bin/python" OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
samples="$HERE/data/samples"
checkpoints="$DEMO_DIR/checkpoints/rlvr_coding_model/phase1_sft_qwen7b_coder"
# What differs from the contract is size: answers of the small model are short, and a CPU computes in float32.
small=(--max_new_tokens 96 --dtype float32 --batch_size 32)
all_sets=(codecontests_valid codecontests_valid_big codecontests_test humaneval mbpp_reg)
SECONDS=0  # bash counts from here: the set-up is not part of the demo's own time

if [ ! -e "$DEMO_DIR/base_model/config.json" ]; then
    log "1/9 build the base model: random weights, a fixed seed"
    "$PYTHON" "$samples/build_model.py" --output_dir "$DEMO_DIR/base_model"
fi

log "2/9 prepare_sft_data.py: BEE records -> Parquet"
"$PYTHON" "$HERE/prepare_sft_data.py" --input_jsonl "$samples/bee.jsonl" --output_dir "$DEMO_DIR/data" \
    --manifest_dir "$samples/manifests" --val_ratio 0.02 --seed 42 --model "$DEMO_DIR/base_model" --max_length 240 --keep shortest

log "3/9 phase1_eval.py: Phase 0, the base model"
"$PYTHON" "$HERE/phase1_eval.py" --model_path "$DEMO_DIR/base_model" --datasets "${all_sets[@]}" \
    --manifest_dir "$samples/manifests" --output_dir "$DEMO_DIR/phase0" "${small[@]}"

log "4/9 run_sft.sh: verl's FSDP trainer, $NPROC processes"
MODEL_PATH="$DEMO_DIR/base_model" TRAIN_FILE="$DEMO_DIR/data/sft_train.parquet" VAL_FILE="$DEMO_DIR/data/sft_val.parquet" \
    CKPT_DIR="$checkpoints" OUTPUT_DIR="$DEMO_DIR" MAX_LENGTH=240 TRAIN_BATCH_SIZE=16 MICRO_BATCH_SIZE=8 LR=4e-3 EPOCHS=4 \
    SAVE_FREQ=110 TEST_FREQ=110 LOGGER=console GRADIENT_CHECKPOINTING=False LOCK_WAIT=900 bash "$HERE/run_sft.sh" "$NPROC"

log "5/9 run_eval_checkpoints.sh: every checkpoint, then the best"
CKPT_DIR="$checkpoints" OUTPUT_DIR="$DEMO_DIR" MANIFEST_DIR="$samples/manifests" bash "$HERE/run_eval_checkpoints.sh" "${small[@]}"

log "6/9 phase1_eval.py: the final evaluation of the best checkpoint"
"$PYTHON" "$HERE/phase1_eval.py" --checkpoint_dir "$checkpoints" --step best --best_checkpoint "$DEMO_DIR/best_checkpoint.json" \
    --datasets "${all_sets[@]}" --manifest_dir "$samples/manifests" --use_external_tests --no_submit_api \
    --output_dir "$DEMO_DIR/eval_final" --wandb_project rlvr_coding_model --wandb_run_name phase1_final_eval "${small[@]}"

log "7/9 generate_report.py: Phase 0 against Phase 1"
"$PYTHON" "$HERE/generate_report.py" --phase0_metrics "$DEMO_DIR/phase0/metrics.json" \
    --phase1_metrics "$DEMO_DIR/eval_final/metrics.json" --output_dir "$DEMO_DIR/report" \
    --train_log "$DEMO_DIR"/logs/sft_*.log --train_data "$DEMO_DIR/data/sft_train.parquet" --qa_html

log "8/9 convert_fsdp_to_hf.py: the best checkpoint's shards -> an HF directory, compared with verl's own"
best="$("$PYTHON" -c 'import json, sys; print(json.load(open(sys.argv[1]))["best_step"])' "$DEMO_DIR/best_checkpoint.json")"
"$PYTHON" "$HERE/convert_fsdp_to_hf.py" --ckpt_dir "$checkpoints/global_step_$best" --output_dir "$DEMO_DIR/converted" --verify

log "9/9 verify_handoff.py: may Phase 3 start from it?"
"$PYTHON" "$HERE/verify_handoff.py" --best_checkpoint "$DEMO_DIR/best_checkpoint.json" --base_model "$DEMO_DIR/base_model" \
    --output_dir "$DEMO_DIR/handoff"

log "done in $((SECONDS / 60)) min $((SECONDS % 60)) s; everything lies in $DEMO_DIR"
PYTHONPATH="$HERE" "$PYTHON" -P -m phase1.checkpoints status --checkpoint_dir "$checkpoints" --output_dir "$DEMO_DIR" \
    --phase0_metrics "$DEMO_DIR/phase0/metrics.json" --phase1_metrics "$DEMO_DIR/eval_final/metrics.json"
head -n 1 "$DEMO_DIR/report/summary.txt"
echo "open $DEMO_DIR/report/report.html"
