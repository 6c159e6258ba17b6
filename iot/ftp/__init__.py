"""FTP and FTPS as a remote, built on the standard library's ftplib."""

from iot.ftp.client import FTPClient
from iot.ftp.settings import TLS, FTPOptions

__all__ = ["TLS", "FTPClient", "FTPOptions"]
