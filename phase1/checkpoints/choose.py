"""Which evaluation is the best one, whether the lead is more than noise, and whether a checkpoint is worse than Phase
0."""

from __future__ import annotations

import json
import sys
from math import isfinite
from pathlib import Path
from typing import Any

from phase1.checkpoints.find import step_folders
from phase1.contract.extraction import UNRECORDED
from phase1.contract.problems import manifest_path, read_manifest
from phase1.contract.records import EXEC_SUCCESS, Record, read_records
from phase1.files import BadInput, read_json, sha256_file
from phase1.report import stats

SELECTION_SET = "codecontests_valid"
SELECTION_METRIC = f"summary.datasets.{SELECTION_SET}.exec_success_rate"
# What the early warning looks at, and what one record says of it.
WATCHED = {
    (SELECTION_SET, "exec_success_rate"): lambda r: r.error_type in EXEC_SUCCESS,
    ("mbpp_reg", "accepted_at_1"): lambda r: bool(r.accepted),
}


def evaluated_steps(output_dir: Path) -> dict[int, dict]:
    """The summaries of all complete `eval_step_N` folders by step, each with its run.json as `run`.

    A folder whose files are damaged is named on stderr and left out: one of them must not hide the others.
    """
    found = {}
    for step, folder in sorted(step_folders(output_dir, "eval_step_").items()):
        if not (folder / "run.json").exists():
            continue
        try:
            run = read_json(folder / "run.json")
            if run.get("status") != "complete":
                continue
            summary = read_json(folder / "summary.json")
            objects = [
                summary["datasets"],
                run.get("model") or {},
                run.get("datasets") or {},
                *(run.get("datasets") or {}).values(),
            ]
            if not all(isinstance(o, dict) for o in objects):
                raise TypeError("datasets or model is no object")
            found[step] = summary | {"run": run}
        except (BadInput, KeyError, TypeError, AttributeError) as e:
            print(f"warning: {folder}: left out, not a whole evaluation ({e})", file=sys.stderr)
    return found


def is_evaluated(summary: dict | None, datasets: list[str], manifest_dir: Path) -> bool:
    """Whether a complete evaluation holds every one of these sets, over all problems of the present manifests."""
    if summary is None:
        return False
    have = summary["run"].get("datasets") or {}
    return all(
        d in have
        and have[d].get("manifest_sha256") == sha256_file(manifest_path(manifest_dir, d))
        and have[d].get("problems") == len(read_manifest(manifest_dir, d))
        for d in datasets
    )


# ---------------------------------------------------------------------------------------------------------- the best
def ranking(evaluated: dict[int, dict]) -> tuple[dict[int, dict[str, Any]], list[int]]:
    """(rates by step, best first; the steps left out because they were measured otherwise).

    The highest exec_success_rate on codecontests_valid; ties go to the higher accepted_at_1, then to the earlier step.
    Only like is ranked with like: of evaluations over other problems, prompts, sampling or judging than the rest, those
    over the most problems count (then the largest group).
    """
    groups: dict[str, dict[int, dict]] = {}
    for step, summary in evaluated.items():
        metrics = summary["datasets"].get(SELECTION_SET)
        metrics = metrics if isinstance(metrics, dict) else {}
        if _number(metrics.get("exec_success_rate")) is not None:
            rates = {
                k: _number(metrics.get(k))
                for k in ("exec_success_rate", "accepted_at_1", "total_problems", "not_judged_count")
            }
            groups.setdefault(_how_measured(summary["run"]), {})[step] = rates
    if not groups:
        return {}, []
    group = max(groups.values(), key=lambda g: (max(r["total_problems"] or 0 for r in g.values()), len(g)))
    order = sorted(group, key=lambda s: (-group[s]["exec_success_rate"], -(group[s]["accepted_at_1"] or 0.0), s))
    return {s: group[s] for s in order}, sorted(s for g in groups.values() if g is not group for s in g)


def choose_best(evaluated: dict[int, dict]) -> dict[str, Any] | None:
    """best_checkpoint.json from all complete evaluations, None where none has the metric. See `ranking` for the
    order."""
    rates, left_out = ranking(evaluated)
    if not rates:
        return None
    best = next(iter(rates))
    problems = int(rates[best]["total_problems"] or 0)
    return {
        "best_step": best,
        "best_exec_success_rate": rates[best]["exec_success_rate"],
        "best_accepted_at_1": rates[best]["accepted_at_1"],
        "model_path": (evaluated[best]["run"].get("model") or {}).get("path"),
        "selection_metric": SELECTION_METRIC,
        "all_checkpoints": {
            str(s): {k: rates[s][k] for k in ("exec_success_rate", "accepted_at_1")} for s in sorted(rates)
        },
        "problems": problems,
        "interval": stats.wilson(round(rates[best]["exec_success_rate"] * problems), problems),  # 95%, of the best rate
        "not_judged": rates[best][
            "not_judged_count"
        ],  # failures that are not the model's, counted against it in the rate
        "not_comparable": left_out,
    }


def against_runner_up(output_dir: Path, rates: dict[int, dict[str, Any]]) -> dict[str, Any] | None:
    """The second best and McNemar's test of the best against it on the same problems; None without a second.

    `beyond_noise` is False where p >= 0.05 and None where the problems' own records are not there to be compared.
    """
    if len(rates) < 2:
        return None
    best, second = list(rates)[:2]
    found = {"step": second, **{k: rates[second][k] for k in ("exec_success_rate", "accepted_at_1")}}
    before, after = (records_of(output_dir / f"eval_step_{s}", SELECTION_SET) for s in (second, best))
    test = compare(before, after, (SELECTION_SET, "exec_success_rate"))
    if test is None:
        return found | {"p": None, "beyond_noise": None}
    return found | {
        "method": test.method,
        "problems": test.n,
        "change": test.change,
        "interval": [test.low, test.high],
        **test.detail,
        "p": test.p,
        "beyond_noise": None if test.p is None else test.p < stats.ALPHA,
    }


def records_of(folder: Path, dataset: str) -> dict[str, Record]:
    """The last record of each problem, first samples only."""
    return {r.problem_id: r for r in read_records(folder / "results" / f"{dataset}.jsonl") if r.sample == 0}


def compare(before: dict[str, Record], after: dict[str, Record], what: tuple[str, str]) -> stats.Comparison | None:
    """The paired test of one rate on the problems that both have; None where they have none in common."""
    common, value = sorted(before.keys() & after.keys()), WATCHED[what]
    if not common:
        return None
    return stats.paired_rate([value(before[i]) for i in common], [value(after[i]) for i in common])


# ----------------------------------------------------------------------------------------------------- early warning
def against_phase0(phase0_metrics: Path, folder: Path) -> tuple[list[str], list[str]]:
    """(what is significantly worse than Phase 0, what could not be compared), a line each.

    exec_success_rate on codecontests_valid and accepted_at_1 on mbpp_reg, Holm-corrected over the two: paired where
    Phase 0 has its records, by the counts where it is the original project's metrics.json and summary.json. Two models
    that do not differ give a warning at one checkpoint in forty, since only the worse half of a two-sided 5% counts.
    """
    from phase1.report.comparability import MISMATCH, comparability
    from phase1.report.inputs import read_side

    base, now = read_side("Phase 0", [phase0_metrics]), read_side(folder.name, [folder / "metrics.json"])
    wanted = {d for d, _ in WATCHED}
    for side in (base, now):
        side.datasets = {d: v for d, v in side.datasets.items() if d in wanted}
    otherwise = [f.text for f in comparability(base, now) if f.kind == MISMATCH]
    tests: dict[tuple[str, str], tuple[stats.Comparison, float, float]] = {}
    unknown = []
    for what in WATCHED:
        dataset, metric = what
        a, b = base.datasets.get(dataset), now.datasets.get(dataset)
        was, is_now = (d.values.get(metric) if d else None for d in (a, b))
        if not a or not b or was is None or is_now is None:
            unknown.append(f"{dataset}: {metric} is missing in {'Phase 0' if was is None else folder.name}")
        elif reasons := [t for t in otherwise if dataset in t.split(":")[0].split(", ")]:
            unknown.append(reasons[0])
        else:
            test = compare(a.records, b.records, what) if a.records and b.records else None
            if test is None and a.n and b.n:
                test = stats.unpaired_rate(round(was * a.n), a.n, round(is_now * b.n), b.n)
            if test is None:
                unknown.append(f"{dataset}: {metric} has neither records nor a number of problems on both sides")
            else:
                tests[what] = (test, was, is_now)
    stats.holm([t for t, *_ in tests.values()])

    def percent(share: float | None) -> str:
        return "-" if share is None else f"{share * 100:+.1f}"

    worse = [
        f"{dataset}: {metric} {was:.1%} in Phase 0, {is_now:.1%} now ({test.change * 100:+.1f} pp, 95% "
        f"interval {percent(test.low)} to "
        f"{percent(test.high)}, p {test.p_holm:.2g}, {test.method}, {test.n} problems)"
        for (dataset, metric), (test, was, is_now) in tests.items()
        if stats.answer(test, better=+1) == stats.WORSE
    ]
    return worse, unknown


def _how_measured(run: dict) -> str:
    hashes = (run.get("datasets") or {}).get(SELECTION_SET)
    return json.dumps(
        [hashes, run.get("prompts_sha256"), run.get("sampling"), UNRECORDED | (run.get("judge") or {})], sort_keys=True
    )


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) else None
