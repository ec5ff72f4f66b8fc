"""
Switches: what a tenant has turned on in a service, one row in the table of operations.

The row is a companion of the event that tells of its change, so nobody can turn anything off unseen. Whoever asks often
is answered from memory, and hears of a change within KNOWN_FOR.

    values   what is on, and what a change writes
    rows     reading it
"""

from holdfast.switches.rows import KNOWN_FOR, Switches
from holdfast.switches.values import ROLE, Switched, change, turned

__all__ = ["KNOWN_FOR", "ROLE", "Switched", "Switches", "change", "turned"]
