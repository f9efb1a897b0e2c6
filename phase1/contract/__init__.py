"""What the stages agree on: prompts, extraction, problems, records, state files, identity."""
