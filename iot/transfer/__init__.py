"""Neutral ground: what every remote and the spooler share. Names no protocol, imports none."""
