"""The settings of the spooler and their validation."""
