"""
The audit trail beside its peers, in one run on one machine. Medians of the repeats that each figure names.

Figures of DynamoDB are of the local engine, in tables of the bench's own; three years of recorded times come from a
clock that is moved by hand. Figures over HTTP are of the deployed service. Every state is compared with a plain fold of
its history, and every page of a search with a scan: a wrong answer ends the bench. Peers append through their
recorders, which take bytes as our stores do, and replay with `repository.get`.
"""

from tests.bench.audit.running import picture, run

__all__ = ["picture", "run"]
