"""Transfers as jobs: what to send next, and what is known at each point; no network, SSH or database."""
