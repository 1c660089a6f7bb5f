"""Settings that all tests share."""

import signal

from hypothesis import settings

# A shell's background jobs ignore Ctrl-C, and all that they start does; the tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: machines are shared, and a slow example is no wrong one. The blob repeats a find.
settings.register_profile("taskd", deadline=None, print_blob=True)
