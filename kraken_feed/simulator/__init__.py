"""A stand-in for Kraken's private side on loopback: REST, WebSocket v1 and v2 on one port.

It shares no code with the client: both sides agreeing on the same mistake would hide it. The exchange
(`exchange.Exchange`) is pure: time is an argument, randomness comes from a seed; `server.Server` gives it
sockets. Importing this package loads nothing else.
"""
