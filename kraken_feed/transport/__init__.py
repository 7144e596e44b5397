"""Talk to Kraken: WebSocket connections, REST calls, and how long to wait between them.

Only this package imports websockets and httpx.

Read ``connection`` first.
"""
