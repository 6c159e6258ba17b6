"""An SFTP server in this process, for the demo and the tests."""
