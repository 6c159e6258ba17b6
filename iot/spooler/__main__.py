"""`python -m iot.spooler` is `iot-spooler`."""

import sys

from iot.spooler.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
