"""Simulated instruments with real physics that speak the real wire protocols."""
