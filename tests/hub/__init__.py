"""Reading models from hubs and the web: a stand-in for the hub, and tests that read from it."""
