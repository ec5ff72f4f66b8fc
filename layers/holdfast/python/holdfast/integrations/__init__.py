"""Holdfast under other people's interfaces; each imports its library, and nothing else of the kernel imports these."""
