"""Finds files in an outbox, waits until they are complete, and brings them into the queue."""
