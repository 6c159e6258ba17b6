"""Inboxes: files of remote folders are fetched, judged, and appear in local ones."""
