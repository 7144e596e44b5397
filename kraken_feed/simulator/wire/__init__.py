"""Implement the WebSocket protocols v1 and v2 of one connection, without a socket.

It takes requests and returns frames: subscriptions, the feeds, order entry. ``dialect`` is what v1 and v2 share.

Read ``peer`` first.
"""
