"""Drivers: one module per instrument."""
