"""What analysis refuses, and how it says so."""

from __future__ import annotations

from ppu.core.errors import ConfigurationError


class AnalysisError(ConfigurationError):
    """A file or a request that cannot be analysed; the message says what can."""
