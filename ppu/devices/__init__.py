"""Base classes that bind transports to ophyd-async signals."""
