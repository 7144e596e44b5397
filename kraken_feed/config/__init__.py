"""Read the configuration and find the API keys.

Read ``schema`` first.
"""
