"""Crystal structures that come with PPU; each file cites its source."""
