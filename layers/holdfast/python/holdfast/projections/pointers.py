"""Which generations are live, and by which version of their view they are made."""

from collections.abc import Iterable, Sequence

from holdfast.dynamodb.attributes import from_item, to_item
from holdfast.dynamodb.reads import RowKey, get, get_many
from holdfast.dynamodb.tables import Tables
from holdfast.dynamodb.writes import Database, put_new
from holdfast.projections.rows import Pointer, pointer_key, pointer_of, pointer_row
from holdfast.projections.views import View


def made_pointer(database: Database, tables: Tables, view: View, tenant: str) -> Pointer:
    """Read which generation of a view is live; where there is none yet, *view* makes the first one from now on."""
    pk, sk = pointer_key(view.name, tenant)
    found = get(database, tables.views, pk, sk)
    if found:
        return pointer_of(found)
    first = Pointer(version=view.version, turns=1)
    standing = put_new(database, tables.views, to_item({"pk": pk, "sk": sk} | pointer_row(first)))
    return pointer_of(from_item(standing)) if standing else first


def read_pointers(
    database: Database, tables: Tables, tenants: Iterable[str], views: Sequence[str]
) -> dict[tuple[str, str], Pointer]:
    """Read which generation of each view is live for each tenant, a hundred at a time."""
    places: dict[RowKey, tuple[str, str]] = {
        (tables.views, *pointer_key(view, tenant)): (tenant, view) for tenant in tenants for view in views
    }
    rows = get_many(database, list(places))
    return {whose: pointer_of(rows.get(place)) for place, whose in places.items()}
