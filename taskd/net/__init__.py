"""What server and agent share of the network: a TLS stream on trio that is cheap for batches.

Knows no messages and no roles.
"""
