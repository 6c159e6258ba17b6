"""Finds files in an outbox, waits until they are complete, and adds them to the queue."""
