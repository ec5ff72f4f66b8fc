"""What the kernel's errors are called in the library, whose names follow PEP 249."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from eventsourcing.persistence import OperationalError, PersistenceError, ProgrammingError

from holdfast.dynamodb.transport import Rejected, Told
from holdfast.errors import ServiceError, Uncertain

FAULTS_OF_OURS: Final = frozenset({"ResourceNotFoundException", "ValidationException"})
"""What DynamoDB says of a table that is not there, or of a request that no table would take."""


class OutcomeUnknownError(OperationalError):
    """The store did not say whether this was written. Read before you decide again."""


@contextmanager
def library_errors() -> Iterator[None]:
    """
    Translate what is raised inside.

    Raises:
        OutcomeUnknownError: it may have happened.
        OperationalError: nothing happened; repeating may help.
        ProgrammingError: the table is missing or the request is wrong.
    """
    try:
        yield
    except PersistenceError:
        raise
    except Uncertain as error:
        raise OutcomeUnknownError(str(error)) from error
    except Rejected as error:
        kind = ProgrammingError if error.code in FAULTS_OF_OURS else OperationalError
        raise kind(str(error)) from error
    except (ServiceError, Told) as error:
        raise OperationalError(str(error)) from error
