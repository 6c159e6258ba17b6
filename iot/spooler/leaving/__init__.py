"""How files leave their outbox: removed, archived or given up."""
