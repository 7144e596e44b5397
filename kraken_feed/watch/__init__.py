"""Show open orders, the last fills and the state of the feed on the full screen.

Needs rich (the extra ``watch``). ``model`` is what is known, ``screen`` and ``table`` draw it, ``app`` runs a tail
behind it.

Read ``model`` first.
"""
