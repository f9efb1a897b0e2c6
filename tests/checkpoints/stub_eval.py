"""Stands in for phase1_eval.py: leaves a complete evaluation at once, or waits while a file `hold` lies beside it.

While it waits there is a file `waiting`, which a test may wait for: nothing is half written then.
"""

import argparse
import time
from pathlib import Path

from phase1.contract.problems import manifest_path, read_manifest
from phase1.files import fingerprint, sha256_file, write_json

p = argparse.ArgumentParser()
p.add_argument("--checkpoint_dir", type=Path)
p.add_argument("--step", type=int)
p.add_argument("--datasets", nargs="+")
p.add_argument("--manifest_dir", type=Path)
p.add_argument("--output_dir", type=Path)
p.add_argument("--best_checkpoint")
args = p.parse_args()

model = args.checkpoint_dir / f"global_step_{args.step}" / "huggingface"
sets = {
    name: {
        "manifest_sha256": sha256_file(manifest_path(args.manifest_dir, name)),
        "problems": len(read_manifest(args.manifest_dir, name)),
    }
    for name in args.datasets
}
run = {"model": {"path": str(model), "step": args.step, "fingerprint": fingerprint(model)}, "datasets": sets}
write_json(args.output_dir / "run.json", {"status": "running", **run})
while Path(__file__).with_name("hold").exists():
    Path(__file__).with_name("waiting").touch()
    time.sleep(0.05)
metrics = {"exec_success_rate": 0.5, "accepted_at_1": 0.5, "total_problems": 2}
write_json(args.output_dir / "summary.json", {"datasets": dict.fromkeys(sets, metrics)})
write_json(args.output_dir / "run.json", {"status": "complete", **run})
print("evaluated", *sets)
