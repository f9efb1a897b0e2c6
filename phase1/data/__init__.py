"""Training data: read, filter, drop duplicates and evaluation problems, verify, report; the public data sets; rows as
verl sees them."""
