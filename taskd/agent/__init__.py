"""The agent: holds leases for one machine and runs their attempts.

A pure core for slots and leases, and a trio shell around it. User code never runs in the agent's
own process, which must answer heartbeats. Knows nothing of other agents.
"""
