"""The command line: ``ppu run``, ``ppu sim``, ``ppu read`` and the rest."""
