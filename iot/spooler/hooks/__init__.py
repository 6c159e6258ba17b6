"""The commands that run around deliveries: before a file is sent, and after."""
