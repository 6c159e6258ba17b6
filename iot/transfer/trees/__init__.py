"""Whole folders, in both directions and on any remote: plan first, then carry out.

local.py, remote.py   what lies below a folder, as far as it can be known
planning.py           pure: what will be sent or fetched, left, made and removed, and why
making.py             reads both sides and has a plan made of them
carrying.py           carries a plan out: folders, transfers, and at the very end removals
methods.py            the part of the facade
"""
