"""Transfers: what to send next and what is true by then; no network, no SSH, no database."""
