"""Which generations are live, read for many at once."""

from collections.abc import Iterable, Sequence

from holdfast.dynamodb.reads import Place, get_many
from holdfast.dynamodb.tables import Tables
from holdfast.dynamodb.writes import Database
from holdfast.projections.rows import Pointer, pointer_key, pointer_of


def read_pointers(
    database: Database, tables: Tables, tenants: Iterable[str], views: Sequence[str]
) -> dict[tuple[str, str], Pointer]:
    """Read which generation of each view is live for each tenant, a hundred at a time."""
    places: dict[Place, tuple[str, str]] = {
        (tables.views, *pointer_key(view, tenant)): (tenant, view) for tenant in tenants for view in views
    }
    rows = get_many(database, list(places))
    return {whose: pointer_of(rows.get(place)) for place, whose in places.items()}
