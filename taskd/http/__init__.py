"""The HTTP API: shows reads and events, passes commands on.

Changes state only by commands, under the same rules and tokens as the wire protocol.
"""
