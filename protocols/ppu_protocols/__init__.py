"""Protocols, their steps and the analysis of what drivers returned."""
