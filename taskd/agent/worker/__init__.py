"""A worker: a process that runs the user's functions, started once and fed with batches.

It imports the user's modules, tells what tasks are in them, and then runs what it
is given: blocking functions one after another in its main thread, coroutines many
at a time on an event loop. Everything that can go wrong with a call is told as a
``Failure``; a worker that dies all the same has named the culprit in the page that
it shares with the agent.
"""
