"""What every door needs: check, compile, submit, ask, decide, see.

Functions over an open store that return the pydantic models of
:mod:`ppu.operations.views`. They know no cell, no HTTP and no terminal, and word
nothing that a door must word: what people can do is said in codes.

:mod:`~ppu.operations.access` opens stores, :mod:`~ppu.operations.description` knows
labs without their instruments, :mod:`~ppu.operations.checking` compiles jobs,
:mod:`~ppu.operations.submission` puts them into the queue,
:mod:`~ppu.operations.control` changes how they go on,
:mod:`~ppu.operations.people` keeps what people did, and
:mod:`~ppu.operations.looking` shows what is so.
"""
