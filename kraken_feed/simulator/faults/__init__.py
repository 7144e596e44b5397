"""Define what can go wrong, and when: kinds of faults, scenario files, the schedule of a run.

What a fault does to a connection is in ``strike``, to the whole exchange in ``exchange``, to a REST call in
``rest.reply``. Nothing here knows connections.

Read ``fault`` first.
"""
