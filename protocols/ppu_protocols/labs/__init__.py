"""Lab files that come with PPU."""
