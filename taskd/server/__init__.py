"""The server: accepts and authenticates peers, feeds their commands to the core, commits, delivers.

A thin trio shell around one loop: gather, decide, stage, flush, release. Nothing leaves it that
its disk does not already know. Decides nothing itself.
"""
