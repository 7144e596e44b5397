"""Find out before a tail does whether machine, network and key are in order.

One module for each place where something can be wrong; each fact stands beside its verdict.

Read ``preflight`` first.
"""
