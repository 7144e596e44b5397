"""Check before a tail starts that machine, network and key are ready.

There is one module per place where something can be wrong. Facts and verdicts are kept together.

Read ``preflight`` first.
"""
