"""Speak the WebSocket protocols v1 and v2 on one connection, without a socket.

Requests in, frames out: subscriptions, the feeds, order entry. What v1 and v2 share is in ``dialect``.

Read ``peer`` first.
"""
