"""Phase 0 against Phase 1: inputs, statistics, tables, verdict, pages."""
