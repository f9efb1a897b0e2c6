"""The checkpoints of a run: find what is whole, evaluate it, choose the best, keep it, show where things stand."""
