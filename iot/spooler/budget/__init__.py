"""How much may wait in an outbox and for how long: what is dropped beyond that, and the lists of what was."""
