"""Bring lines to a file, a pipe, a socket or a terminal without ever blocking the loop.

Read ``sink`` first.
"""
