"""What server and agent share of the network: a TLS stream on trio that is cheap for batches, and who hears it.

Knows no messages and no roles.
"""
