"""Windows of the week, and what holds at which time of day. Pure."""
