"""taskd beside what people would pick instead: the same work, on one machine, in turns.

``run.py`` starts a peer's broker, workers and a client in the peer's own environment, and asks the
client for one work after another; ``client.py`` does the works, the same for all, through an
adapter (``adapters/``, one file a peer, ``interface.py``). ``figures.py`` takes medians, ``page.py``
and ``plots.py`` make the page. What runs in a peer's environment uses the standard library and the
peer alone: ``interface``, ``bodies``, ``client`` and the adapters.
"""
