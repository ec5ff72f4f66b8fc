"""
The kernel: one log, one way to write, one way to prove it.

Everything that must not be lost is an event in an append-only stream, written by one
conditional write; every other view is a fold of it. The modules are imported by name
(`from holdfast.streams import transact`), so that a function pays only for what it uses.
"""
