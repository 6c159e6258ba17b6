"""The durable queue of all known files, and the decisions about them."""
