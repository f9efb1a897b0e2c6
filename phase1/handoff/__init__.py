"""The hand-off to Phase 3: checks, checklist, GRPO configuration, model card."""
