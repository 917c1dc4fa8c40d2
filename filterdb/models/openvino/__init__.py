"""Read OpenVINO IR: a graph in an XML file, and its constants in a binary file beside it."""
