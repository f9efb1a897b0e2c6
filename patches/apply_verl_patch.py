"""Add `train/grad_norm` to what verl 0.7.0's SFT trainer logs each step (patches/verl-0.7.0-grad_norm.patch).

    python patches/apply_verl_patch.py                    # patch the verl that this Python would import
    python patches/apply_verl_patch.py --check            # exit 0: in place or not needed; 1: not applied
    python patches/apply_verl_patch.py --revert           # put the original bytes back

Only verl 0.7.0 is patched, and only a file whose hash is known: anything else is left as it is and named. verl 0.7.1
and later log the norm themselves (verl/trainer/sft_trainer.py).
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
from pathlib import Path

from packaging.version import InvalidVersion, Version

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from phase1.files import BadInput, replacing, run_script, sha256_file

PATCH = Path(__file__).resolve().with_name("verl-0.7.0-grad_norm.patch")
TARGET = "trainer/fsdp_sft_trainer.py"
ORIGINAL_SHA256 = "d63f57ae240464b309413b2fd0caa3f6d06ce9536ac4889e8e06a4bf245f1fcf"
PATCHED_SHA256 = "72a54abe88cccaf49e61eb5d2ebf03d959e94293892839cfbee880f1158ccaf9"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="change nothing; exit 1 when the patch is missing")
    action.add_argument("--revert", action="store_true", help="take the patch out again")
    parser.add_argument(
        "--verl_dir", type=Path, help="the verl package's folder (default: the one this Python would import)"
    )
    args = parser.parse_args()

    verl_dir = args.verl_dir or installed_verl()
    version = verl_version(verl_dir)
    if version >= Version("0.7.1"):
        print(f"verl {version} in {verl_dir} logs train/grad_norm itself: nothing is needed")
        return 0
    if version != Version("0.7.0"):
        raise BadInput(f"{verl_dir}: verl {version}, the patch is for 0.7.0 only; pip install verl==0.7.0 --no-deps")
    target = verl_dir / TARGET
    patched = is_patched(target)
    if args.check:
        print(f"{target}: {'patched' if patched else 'NOT patched; python patches/apply_verl_patch.py patches it'}")
        return 0 if patched else 1
    if patched != args.revert:
        print(f"{target}: {'is patched already' if patched else 'is the original already'}")
        return 0
    rewrite(target, revert=args.revert)
    print(f"{target}: {'the original is back' if args.revert else 'patched, train/grad_norm is logged each step'}")
    return 0


def installed_verl() -> Path:
    """The folder of the verl that this Python would import; verl itself is not imported (it takes seconds)."""
    spec = importlib.util.find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        raise BadInput(
            f"verl is not installed for {sys.executable}; activate the environment that has it, or name --verl_dir"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def verl_version(verl_dir: Path) -> Version:
    """What the package itself says; a copied folder has no metadata beside it."""
    file = verl_dir / "version" / "version"
    try:
        return Version(file.read_text().strip())
    except (OSError, InvalidVersion) as e:
        raise BadInput(
            f"{file}: no version of verl there ({e}); --verl_dir is the folder that holds verl's __init__.py"
        ) from None


def is_patched(target: Path) -> bool:
    """Whether the patch is in; BadInput when the file is neither the original nor the patched one."""
    if not target.is_file():
        raise BadInput(f"{target}: no such file; reinstall verl 0.7.0")
    found = sha256_file(target)
    if found not in (ORIGINAL_SHA256, PATCHED_SHA256):
        raise BadInput(
            f"{target}: unknown content (sha256 {found[:12]}…), someone else changed it; not touched, "
            "reinstall verl 0.7.0"
        )
    return found == PATCHED_SHA256


def rewrite(target: Path, revert: bool) -> None:
    """Apply or take out the diff. The file is replaced, not written into: installers hard-link it to their cache."""
    before, after = hunk(PATCH.read_text())
    if revert:
        before, after = after, before
    text = target.read_bytes().decode()
    if text.count(before) != 1:
        raise BadInput(f"{PATCH}: does not fit {target}; restore the patch file")
    with replacing(target) as temp:
        temp.write_bytes(text.replace(before, after).encode())
        if sha256_file(temp) != (ORIGINAL_SHA256 if revert else PATCHED_SHA256):
            raise BadInput(f"{PATCH}: gives another file than it should; restore the patch file")
        shutil.copymode(target, temp)


def hunk(patch: str) -> tuple[str, str]:
    """The text that a unified diff of one hunk takes out and the text that it puts in, context included."""
    lines = patch.split("@@\n", 1)[1].splitlines(keepends=True)
    return "".join(x[1:] for x in lines if x[0] in " -"), "".join(x[1:] for x in lines if x[0] in " +")


if __name__ == "__main__":
    run_script(main)
