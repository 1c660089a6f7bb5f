"""The page in the browser: serves it, and knows who has logged in.

What it shows it asks of the HTTP API as any program would, by the session's cookie in place of a token; so the
server checks each action, whatever the page offers. No build step: what lies in ``static`` is what is sent.

Changes nothing of the server's state, and costs its commit loop nothing while nobody looks.
"""
