"""`python -m phase1.judge`: see judge.py."""

from phase1.files import run_script
from phase1.judge.judge import main

run_script(main)
