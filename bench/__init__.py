"""A benchmark that anyone can repeat: `python -m bench`. See README.md."""
