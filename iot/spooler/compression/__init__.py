"""Files that are sent compressed: once, into the state directory, and from there."""
