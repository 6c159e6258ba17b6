"""What is known of every file: the durable queue and the decisions about it."""
