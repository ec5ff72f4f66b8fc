"""What may be asked of a stream's states, and what changed between two of them: pure."""

from typing import Any, Final

from holdfast.errors import Invalid, NotFound
from holdfast.folds import Reducers
from holdfast.json_patch import equal

reducers: Final = Reducers()
"""
How streams become state, by category. Register yours here: `@reducers.register("orders", version=1)`.

And what events of old are made into first, by type and `dataschema`: `@reducers.upcaster("order.placed", version=1)`.
"""


def stream_not_found(stream: str) -> NotFound:
    return NotFound("stream_not_found", f"There is no stream {stream!r}.")


def check_version(version: int | None, last_version: int) -> None:
    if version is not None and version > last_version:
        raise NotFound("version_not_found", f"The stream ends at version {last_version}.", last_version=last_version)


def merge_patch(before: Any, after: Any) -> Any:
    """
    Write the merge patch (RFC 7396) that turns *before* into *after*; between equal objects it is `{}`.

    Raises:
        Invalid: 422 `no_merge_patch`; a null member came to be, and in a merge patch null means to remove.
    """
    if not isinstance(before, dict) or not isinstance(after, dict):
        return after if not isinstance(after, dict) else _written(after)
    patch: dict[str, Any] = {name: None for name in before if name not in after}
    for name, value in after.items():
        if name not in before:
            patch[name] = _written(value)
        elif not equal(before[name], value):
            # Null in place of something else, too, can only be read as its removal.
            patch[name] = merge_patch(before[name], value) if isinstance(value, dict) else _written(value)
    return patch


def _written(value: Any) -> Any:
    """Let through what a merge patch says as it is."""
    if value is None:
        raise Invalid(
            "no_merge_patch", "A null member came to be, which no merge patch can say. Compare two states.", status=422
        )
    if isinstance(value, dict):
        for member in value.values():
            _written(member)
    return value
