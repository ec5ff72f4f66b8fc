"""Where to deploy, and where progress goes."""

import functools
from dataclasses import dataclass
from typing import Any, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from stacks import DeployFailed

CONNECT_TIMEOUT_SECONDS = 5.0
READ_TIMEOUT_SECONDS = 60.0
ATTEMPTS_MAX = 5


class Report(Protocol):
    """Where progress goes: a terminal, a log, or both."""

    def step(self, text: str) -> None: ...


@dataclass(frozen=True)
class Place:
    """One account in one region: what every ARN is made of."""

    partition: str
    region: str
    account: str

    @property
    def parameters(self) -> dict[str, str]:
        """What CloudFormation itself fills into a template here."""
        return {"AWS::Partition": self.partition, "AWS::Region": self.region, "AWS::AccountId": self.account}

    def arn(self, service: str, resource: str) -> str:
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"


@dataclass(frozen=True)
class Target:
    """Where to deploy: an account and a region of AWS, or the local engine."""

    session: boto3.Session
    endpoint_url: str | None = None
    is_local: bool = False
    gateway_url: str | None = None
    """Where clients reach the local services; it stands in front of the engine."""

    def client(self, service: str) -> Any:
        """Make (once) the client of one AWS service, with time-outs."""
        return _client(self.session, self.endpoint_url, service)

    def place(self) -> Place:
        """
        Ask whose account this is: the first call of everything, so that wrong credentials show before any work.

        Raises:
            DeployFailed: nobody answers, or not to these credentials.
        """
        try:
            identity = self.client("sts").get_caller_identity()
        except (BotoCoreError, ClientError) as error:
            raise DeployFailed(
                f"{self.endpoint_url or 'AWS'} cannot be used: {error}",
                "Start the local engine with ./holdfast up."
                if self.is_local
                else "Check credentials and region with `aws sts get-caller-identity`.",
            ) from error
        return Place(identity["Arn"].split(":")[1], self.client("sts").meta.region_name, identity["Account"])


@functools.cache
def _client(session: boto3.Session, endpoint_url: str | None, service: str) -> Any:
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=READ_TIMEOUT_SECONDS,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS_MAX},
        # An emulator has one host name: a bucket is a part of the path there.
        s3={"addressing_style": "path" if endpoint_url else "auto"},
    )
    make: Any = session.client
    return make(service, endpoint_url=endpoint_url, config=config)
