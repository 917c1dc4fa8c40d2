"""Serve the page of a database over HTTP, on this machine."""
