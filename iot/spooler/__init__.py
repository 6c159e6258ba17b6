"""The device service: what appears in an outbox is delivered to a server, once and whole, then leaves the outbox."""
