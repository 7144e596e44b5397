"""The other programs of the comparison, each a whole process: `python FILE …`. They import nothing of ours."""
