"""Models in memory and the training monitor with real PyTorch, Lightning and Keras: `make monitor`.

These need large packages, so they have an environment of their own (requirements/monitor.txt) and are not in `make
test`, which tests what needs none of them in tests/monitor.
"""
