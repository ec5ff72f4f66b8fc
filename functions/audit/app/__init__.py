"""
How the audit trail is reached: its routes, and the wiring behind them.

    door      the app, and what its routes share
    streams   append, read, states
    reading   read models: searches and lists
    log       the log and its proofs
    rebuilds  read models made again

What AWS calls by name stands in this module; the others declare routes.
"""

from functions.audit.app import log, reading, rebuilds, streams
from functions.audit.app.door import app

__all__ = ["app", "log", "reading", "rebuilds", "streams"]
