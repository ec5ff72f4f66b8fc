"""How much is tried: the normal counts, or the specs' full ones under `./holdfast test --soak SERVICE`."""

import os

IS_SOAK = bool(os.environ.get("HOLDFAST_SOAK"))


def examples(normal: int, *, soak: int) -> int:
    return soak if IS_SOAK else normal
