"""The wire protocol, sans-IO: bytes to messages and back, handshake, payload codec, errors, ids.

Feeds on any chunking of the bytes. Knows no sockets, clocks or event loops. `protocol/SPEC.md` is
normative; a test compares it with this code.
"""
