"""Many requests in flight on one channel, for several jobs at once."""
