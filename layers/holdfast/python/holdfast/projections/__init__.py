"""
Projections: read models that are folds of the log, and can be made again from it at any time.

    views       what a read model is: listing and counting views. Pure
    batches     the next step of one. Pure
    projector   steps, carried out exactly once
    rebuilds    the next generation beside the live one, compared, and swapped in
    reader      which generation is live, how far it has come, and waiting for it
"""

from holdfast.projections.projector import Projector
from holdfast.projections.rows import Generation, Pointer
from holdfast.projections.views import Attributes, Checkpoint, Counting, Effect, Key, Listing, Recorded, Tally, View

__all__ = [
    "Attributes",
    "Checkpoint",
    "Counting",
    "Effect",
    "Generation",
    "Key",
    "Listing",
    "Pointer",
    "Projector",
    "Recorded",
    "Tally",
    "View",
]
