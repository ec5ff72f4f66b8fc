"""Bring histories in: read them as items, agree with what the stream already holds, append the rest."""
