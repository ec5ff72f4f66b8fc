"""Clients of AWS: made on first use, one per service, with time-outs and a pool, never with hidden patience."""

import functools
from typing import Any

CONNECT_TIMEOUT_SECONDS = 1.0
READ_TIMEOUT_SECONDS = 5.0
CONNECTIONS_MAX = 32
ATTEMPTS_MAX = 3


@functools.cache
def client(
    service: str, *, attempts_max: int = ATTEMPTS_MAX, region: str | None = None, endpoint_url: str | None = None
) -> Any:
    """
    Make the client of one AWS service.

    It honours AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_<SERVICE>. *attempts_max* counts the first call too:
    1 leaves repeating to the caller, who knows which calls may be repeated.
    """
    import boto3  # noqa: PLC0415 - costs more than the rest of a cold start; imported by the first call that needs it
    from botocore.config import Config  # noqa: PLC0415

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=READ_TIMEOUT_SECONDS,
        max_pool_connections=CONNECTIONS_MAX,
        retries={"mode": "standard", "total_max_attempts": attempts_max},
        # The emulators and DynamoDB answer with checksums of their own; the default would add one to every S3 call.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    make: Any = boto3.client  # its overloads name every service literally
    return make(service, region_name=region, endpoint_url=endpoint_url, config=config)
