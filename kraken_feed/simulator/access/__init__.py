"""Decide who may do what: API keys with their permissions, nonces and signatures, and WebSocket tokens.

Read ``key`` first.
"""
