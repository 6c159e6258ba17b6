"""The wire: the only room that imports paramiko and pysftp."""
