"""What the scripts of the Phase 1 toolkit share: small modules with one job each.

docs/files_and_environments.md has the tree.
"""
