"""The main loop, and the pieces that it is made of."""
