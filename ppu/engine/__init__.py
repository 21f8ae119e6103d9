"""The engine: RunEngine on the lab's loop, steps, and the journal of a run."""
