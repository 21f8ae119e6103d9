"""Simulated instruments: physics, firmware and a wire front each."""
