"""The states of an outbox and of the connection, and the socket that takes commands."""
