"""The device service: files that appear in an outbox are delivered to a server and then leave the outbox."""
