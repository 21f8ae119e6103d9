"""The process that owns the instruments: opens a lab, runs jobs, adopts, ends."""
