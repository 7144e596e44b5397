"""Keep the checkpoint on the disk.

``checkpoint`` has the values, ``store`` writes them durably into SQLite.

Read ``checkpoint`` first.
"""
