"""The training run around verl: the job, its checks, its schedule, its log."""
