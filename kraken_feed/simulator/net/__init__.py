"""Give an exchange sockets: HTTP/1.1 and WebSockets on one loopback port.

In the simulator, only this package imports websockets, and only this package and ``main`` import asyncio.

Read ``connection`` first.
"""
