"""Wire servers: they move bytes between a socket or pty and an instrument.

A front knows how long bytes take on its wire and nothing of what they mean.
"""
