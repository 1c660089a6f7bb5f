"""What users program against: the App, its tasks, and handles to what was submitted.

One sans-IO session, which decides on correlation, retries and reconnects, under two thin faces:
sync and async. Imports the protocol alone.
"""
