"""How files leave their outbox: removed, archived or quarantined."""
