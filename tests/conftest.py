"""Settings that all tests share."""

from hypothesis import settings

# No deadline: machines are shared, and a slow example is no wrong one. The blob repeats a find.
settings.register_profile("taskd", deadline=None, print_blob=True)
