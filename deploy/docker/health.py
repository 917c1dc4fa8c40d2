#!/opt/filterdb/bin/python
"""Exit 0 when the Dask scheduler or worker of this container answers on its own /health, 1 when not."""

import os
import sys
import urllib.request

port = os.environ.get("FILTERDB_HEALTH_PORT")
if not port:
    sys.exit(0)  # a job: it is healthy as long as it runs
try:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=4) as answer:
        sys.exit(0 if answer.status == 200 else 1)
except OSError as error:
    sys.exit(f"port {port}: {error}")
