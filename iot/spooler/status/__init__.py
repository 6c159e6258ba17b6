"""How things stand, for people and programs."""
