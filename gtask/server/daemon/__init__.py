"""The command gtask-server."""
