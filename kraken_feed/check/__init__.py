"""Check before a tail starts that machine, network and key are ready.

There is one module per place where something can be wrong. Each one both finds the facts and judges them.

Read ``preflight`` first.
"""
