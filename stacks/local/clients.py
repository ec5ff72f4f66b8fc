"""AWS clients for the local stack: its own root credentials, time-outs everywhere, no proxy in between."""

import functools
import threading
from collections.abc import Callable
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from stacks.local.engine import ACCESS_KEY, REGION, SECRET_KEY

CONNECT_SECONDS_MAX = 1.0
READ_SECONDS_MAX = 10.0
INVOKE_SECONDS_MAX = 15 * 60 + 10.0
"""Lambda's longest function time-out, and a little: an invocation given up earlier would still be running."""
ATTEMPTS_MAX = 3
INVOKE_ATTEMPTS_MAX = 1
"""A second invocation while the first still runs would break a stream's order; the dispatcher repeats by itself."""
CONNECTIONS_MAX = 32

REFUSALS = (BotoCoreError, ClientError, ResponseParserError)
"""How a call fails: not sent, refused, or answered by half because the engine ended meanwhile."""


def session() -> boto3.Session:
    """Make the session of the engine's root: nothing of the developer's own configuration gets in."""
    return boto3.Session(aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name=REGION)


@functools.cache
def factory(endpoint_url: str) -> Callable[[str], Any]:
    """Make clients of one endpoint, one per service, safe to ask from any thread."""
    made: dict[str, Any] = {}
    # Making a client is not thread-safe in boto3; using one is.
    lock = threading.Lock()
    own_session: Any = session()

    def client(service: str) -> Any:
        with lock:
            if service not in made:
                made[service] = own_session.client(service, endpoint_url=endpoint_url, config=_config(service))
            return made[service]

    return client


def _config(service: str) -> Config:
    is_lambda = service == "lambda"
    return Config(
        connect_timeout=CONNECT_SECONDS_MAX,
        read_timeout=INVOKE_SECONDS_MAX if is_lambda else READ_SECONDS_MAX,
        retries={"mode": "standard", "total_max_attempts": INVOKE_ATTEMPTS_MAX if is_lambda else ATTEMPTS_MAX},
        max_pool_connections=CONNECTIONS_MAX,
        proxies={},
    )
