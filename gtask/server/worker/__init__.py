"""The process that serves one client."""
