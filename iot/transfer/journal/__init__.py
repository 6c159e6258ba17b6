"""The journal: one SQLite file that survives a power cut, and what transfers keep in it."""
