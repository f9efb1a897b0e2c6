"""What is checked before a training run touches a GPU."""
