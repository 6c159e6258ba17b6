"""The agent's own state: its lock, where its journal lies, the time that has passed."""
