"""
Where a service's WebSockets are, on the local engine.

stacks/websockets.yaml makes the API. On AWS its address follows from its id; locally clients connect to the gateway,
and functions send through the engine's own address. Both travel as the stack's parameters.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from stacks.bundle import STAGE

API: Final = "WebsocketAPI"
"""The API's logical id."""
PATH: Final = "ws"
"""What a service's WebSocket is called below its address at the gateway: `ws://127.0.0.1:<port>/<service>/ws`."""
ENGINE_PATH: Final = "_aws/execute-api"
"""Under which the engine answers for an API without DNS."""


def parameters(service: str, endpoint_url: str | None, gateway_url: str | None) -> dict[str, str]:
    """Say where a service's clients connect, and where its functions send, if it is not AWS itself that answers."""
    if endpoint_url is None:
        return {}
    sending = {"WebsocketEndpoint": f"{endpoint_url}/{ENGINE_PATH}"}
    # Without a gateway, a client has to ask for the API's id: there is no address to tell it.
    return sending if gateway_url is None else {**sending, "WebsocketUrl": url_at(gateway_url, service)}


def url_at(gateway_url: str, service: str) -> str:
    """Say where clients connect."""
    return f"ws://{urlsplit(gateway_url).netloc}/{service}/{PATH}"


def upstream(physical_ids: Mapping[str, str], endpoint_url: str) -> str | None:
    """Say where the engine answers the WebSocket API of a stack with these resources; None if it has none."""
    api_id = physical_ids.get(API)
    return None if api_id is None else f"ws://{urlsplit(endpoint_url).netloc}/{ENGINE_PATH}/{api_id}/{STAGE}"
