"""Make one line of output.

Pure. ``render`` writes lines, ``types`` reads them back, ``schema`` describes them, ``view`` reads Kraken's fields,
``open_orders`` remembers the orders that are open.

Read ``render`` first.
"""
