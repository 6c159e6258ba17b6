"""The process around the agent: signals, systemd, logging, the socket's commands, which server is used."""
