"""Resumable, journaled SFTP transfers for devices behind bad links."""
