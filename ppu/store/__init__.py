"""The journal: what must not be lost, in a database."""
