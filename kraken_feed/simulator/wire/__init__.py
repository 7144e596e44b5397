"""Implement the WebSocket protocols v1 and v2 of one connection, without a socket.

It takes requests and returns frames: subscriptions, the feeds, order entry. The parts that v1 and v2 share are in
``dialect``.

Read ``peer`` first.
"""
