"""SSH: the only folder that imports paramiko and pysftp."""
