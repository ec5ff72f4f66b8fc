"""Whether the services answer: asked through the gateway, as everybody else asks them."""

import http.client
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

HEALTH_SECONDS_MAX = 3.0
"""A cold function answers in about one."""
WARM_UP_SECONDS_MAX = 30.0


def warm_up(urls: Sequence[str]) -> None:
    """Have every function started once, so that the first real request does not wait for that; tell nothing."""
    if urls:
        with ThreadPoolExecutor(max_workers=len(urls)) as asked_together:
            list(asked_together.map(lambda url: is_healthy(url, WARM_UP_SECONDS_MAX), urls))


def is_healthy(service_url: str, timeout_seconds: float = HEALTH_SECONDS_MAX) -> bool:
    """Ask a service for its description, which takes no token, and say whether it answered."""
    # No proxy may stand between us and our own loopback address, whatever the developer's environment says.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{service_url}/openapi.json", timeout=timeout_seconds) as answer:
            return bool(answer.status == http.HTTPStatus.OK)
    except (OSError, http.client.HTTPException):
        return False
