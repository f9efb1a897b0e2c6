"""What vLLM's own processes load of us; this folder alone is put on their path."""
