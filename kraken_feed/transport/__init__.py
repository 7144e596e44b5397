"""Talk to Kraken: WebSocket connections, REST calls, and how long to wait between them.

The home of websockets and httpx.

Read ``connection`` first.
"""
