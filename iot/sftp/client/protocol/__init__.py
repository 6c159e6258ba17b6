"""SFTP version 3 as bytes, and what a server can do. Pure."""
