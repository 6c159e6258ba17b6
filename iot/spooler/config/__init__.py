"""The settings of the spooler and their validation."""

from iot.transfer.deferred import without_plugins

without_plugins()
