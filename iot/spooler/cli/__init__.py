"""The command `iot-spooler`. What one command needs is imported when it runs."""
