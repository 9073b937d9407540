"""Processes of this machine: what this one has started, and that it ends with this one."""
