"""One evaluation folder: the loop over problems, metrics, the QA sample, tables, W&B, looks at test-only sets."""
