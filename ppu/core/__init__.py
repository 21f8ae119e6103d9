"""What everything in PPU may use: errors, lab time, lab files, capabilities."""
