"""The Conf-Profile method (arXiv 2509.18864) and its command line.

This package is the room that every other room depends on: it holds pure functions, the tables' schemas and
the command line. It imports no torch, kfp, kserve, feast or vllm at import time.
"""

__version__ = "0.1.0"
