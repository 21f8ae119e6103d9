"""Byte paths to instruments: the only place that imports wire libraries."""
