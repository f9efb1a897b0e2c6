"""`python -m phase1.train`: see run.py."""

from phase1.files import run_script
from phase1.train.run import main

run_script(main)
