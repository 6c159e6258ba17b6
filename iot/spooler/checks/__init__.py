"""What `check` looks at: settings against this device, and a trial at the server."""
