"""What the scripts of the Phase 1 toolkit share: small modules with one job each (README.md has the tree)."""
