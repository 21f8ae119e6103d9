"""Physical constants (exact since the SI of 2019) and their derived values."""

from typing import Final

STEFAN_BOLTZMANN: Final = 5.670374419e-8
"""Stefan-Boltzmann constant [W m^-2 K^-4] (CODATA 2018)."""

GAS_CONSTANT: Final = 8.31446261815324
"""Molar gas constant [J mol^-1 K^-1] (exact)."""

ZERO_DEGC_KELVIN: Final = 273.15
"""0 degC on the kelvin scale."""
