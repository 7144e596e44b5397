"""Give an exchange sockets: HTTP/1.1 and WebSockets on one loopback port.

The home of asyncio and websockets in the simulator.

Read ``connection`` first.
"""
