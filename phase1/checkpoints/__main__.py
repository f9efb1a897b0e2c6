"""`python -m phase1.checkpoints`: see command.py."""

from phase1.checkpoints.command import main
from phase1.files import run_script

run_script(main)
