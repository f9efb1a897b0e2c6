"""What a model directory holds: tensors, shapes, FSDP shards, tokenizer and chat template."""
