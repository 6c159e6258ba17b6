"""The settings of the spooler, and what is wrong with them."""
