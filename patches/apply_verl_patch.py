"""Add `train/grad_norm` to what verl 0.7.0's SFT trainer logs each step (patches/verl-0.7.0-grad_norm.patch).

    python patches/apply_verl_patch.py                    # patch the verl that this Python would import
    python patches/apply_verl_patch.py --check            # exit 0: in place or not needed; 1: not applied
    python patches/apply_verl_patch.py --revert           # put the original bytes back

Only verl 0.7.0 is patched, and only a file whose hash is known: anything else is left as it is and named. verl 0.7.1
and later log the norm themselves (verl/trainer/sft_trainer.py).
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from packaging.version import InvalidVersion, Version

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from phase1.files import BadInput, replacing, run_script, sha256_file
from phase1.train.verl_version import (
    FIRST_WITHOUT_PATCH,
    ORIGINAL_SHA256,
    PATCH_TARGET,
    PATCHED_SHA256,
    PATCHED_VERSION,
    verl_folder,
)

PATCH = Path(__file__).resolve().with_name(f"verl-{PATCHED_VERSION}-grad_norm.patch")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    group = parser.add_argument_group("what to do", "without these: apply the patch where it is missing")
    action = group.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="change nothing; exit 1 when the patch is missing")
    action.add_argument("--revert", action="store_true", help="take the patch out again")
    group.add_argument(
        "--verl_dir", type=Path, help="the verl package's folder (default: the one this Python would import)"
    )
    args = parser.parse_args()

    verl_dir = args.verl_dir or verl_folder(otherwise="--verl_dir")
    version = verl_version(verl_dir)
    if version >= Version(FIRST_WITHOUT_PATCH):
        print(f"verl {version} in {verl_dir} logs train/grad_norm itself: nothing is needed")
        return 0
    if version != Version(PATCHED_VERSION):
        raise BadInput(
            f"{verl_dir}: verl {version}, the patch is for {PATCHED_VERSION} only; pip install "
            f"verl=={PATCHED_VERSION} --no-deps"
        )
    target = verl_dir / PATCH_TARGET
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


def verl_version(verl_dir: Path) -> Version:
    """What the package itself says, since a copied folder has no metadata beside it.

    Raises:
        BadInput: it says nothing.
    """
    file = verl_dir / "version" / "version"
    try:
        return Version(file.read_text().strip())
    except (OSError, InvalidVersion) as e:
        raise BadInput(
            f"{file}: no version of verl there ({e}); --verl_dir is the folder that holds verl's __init__.py"
        ) from None


def is_patched(target: Path) -> bool:
    """Whether the patch is in.

    Raises:
        BadInput: the file is missing, or neither the original nor the patched one.
    """
    if not target.is_file():
        raise BadInput(f"{target}: no such file; reinstall verl 0.7.0")
    found = sha256_file(target)
    if found not in (ORIGINAL_SHA256, PATCHED_SHA256):
        raise BadInput(
            f"{target}: unknown content (sha256 {found[:12]}…), changed by someone else; left as it is, "
            "reinstall verl 0.7.0"
        )
    return found == PATCHED_SHA256


def rewrite(target: Path, revert: bool) -> None:
    """Apply or take out the diff. The file is replaced, not written into: installers hard-link it to their cache.

    Raises:
        BadInput: the diff does not fit, or gives another file than it should.
    """
    change = hunk(PATCH.read_text())
    before, after = (change.after, change.before) if revert else (change.before, change.after)
    text = target.read_bytes().decode()
    if text.count(before) != 1:
        raise BadInput(f"{PATCH}: does not fit {target}; restore the patch file")
    with replacing(target) as temp:
        temp.write_bytes(text.replace(before, after).encode())
        if sha256_file(temp) != (ORIGINAL_SHA256 if revert else PATCHED_SHA256):
            raise BadInput(f"{PATCH}: gives another file than it should; restore the patch file")
        shutil.copymode(target, temp)


class Hunk(NamedTuple):
    """The text that a diff takes out and the text that it puts in, both with the lines around them."""

    before: str
    after: str


def hunk(patch: str) -> Hunk:
    """What a unified diff of one hunk changes."""
    lines = patch.split("@@\n", 1)[1].splitlines(keepends=True)
    return Hunk("".join(x[1:] for x in lines if x[0] in " -"), "".join(x[1:] for x in lines if x[0] in " +"))


if __name__ == "__main__":
    run_script(main)
