"""
The audit trail: every state change an immutable event, every past state answered.

An acknowledged event is in its stream exactly once, for ever, at one version; a caller that heard
nothing repeats the call and gets the first answer, however late. Any state of any stream is answered at
a version, at an event time, and as it was known at a recorded time.
"""
