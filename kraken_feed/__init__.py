"""Tail an account's private Kraken feeds as JSON lines, through reconnects, byte for byte."""

__version__ = "0.1.0"
