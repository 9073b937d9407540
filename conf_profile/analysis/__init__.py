"""Votes, calibration, thresholds and metrics over tables in memory: what `import conf_profile as cp` offers a notebook.

The functions check a caller's DataFrame or Arrow table, call `consensus` and `evaluation`, and return the same kind of
frame. They hold no method of their own, read no file and ask no model. docs/python.md describes them.
"""
