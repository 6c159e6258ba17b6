"""FTP and FTPS as a remote, built on the standard library's ftplib."""

import logging

from iot.ftp.client import FTPClient
from iot.ftp.keywords import FTPKeywords
from iot.ftp.settings import TLS, FTPOptions

__all__ = ["TLS", "FTPClient", "FTPKeywords", "FTPOptions"]

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a library logs nothing unless asked to
