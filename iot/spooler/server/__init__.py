"""What is known of a server: whether it may be tried, what it asks for, which of two is used."""
