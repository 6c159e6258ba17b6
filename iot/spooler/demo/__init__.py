"""`iot-spooler demo`."""
