"""A program and tests in, a verdict out: tasks, sandbox, comparison."""
