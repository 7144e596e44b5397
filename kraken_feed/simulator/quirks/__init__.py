"""Know the standing behaviours that clients do not expect, and the spellings of JSON that some of them bring.

Only what holds for a whole run goes in here. What happens at a moment is a fault, see ``faults``.

Read ``quirk`` first.
"""
