"""The version of iot-sftp-client: this line is its one place."""

__version__ = "0.1.0"
