"""`python -m iot.sftp.spooler` is `iot-spooler`."""

import sys

from iot.sftp.spooler.cli import main

if __name__ == "__main__":
    sys.exit(main())
