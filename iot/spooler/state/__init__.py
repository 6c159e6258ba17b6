"""The agent's own state: its lock, the place of its journal, elapsed time."""
