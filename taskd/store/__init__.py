"""Keys and bytes of what the core decided: one interface, one file for each engine.

Knows no rules: it loads, scans, stages atomic batches and flushes them.
"""
