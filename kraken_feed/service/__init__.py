"""Run a tail as a process that lives for months: signals, systemd, health and metrics.

Read ``run`` first.
"""
