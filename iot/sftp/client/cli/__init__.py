"""The command line: `iot-sftp`."""
