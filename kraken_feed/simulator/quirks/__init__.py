"""Define quirks, behaviours that clients do not expect, and the spellings of JSON that some of them cause.

Only behaviours for a whole run belong here. Something that happens at a moment is a fault, see ``faults``.

Read ``quirk`` first.
"""
