"""Physics models: pure functions and states of numpy; time is an argument."""
