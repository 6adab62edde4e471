"""What carries a run: optimiser and schedule, many processes, the state on disk, Ctrl-C, and what people see."""
