"""Middleware that comes with taskd, to be given to ``App(middleware=[…])``."""

from taskd.middleware.carry import Carry
from taskd.middleware.report import AttemptError, ReportErrors

__all__ = ["AttemptError", "Carry", "ReportErrors"]
