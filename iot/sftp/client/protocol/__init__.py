"""SFTP version 3 on the wire, and what a server supports. Pure."""
