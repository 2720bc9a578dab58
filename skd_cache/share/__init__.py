"""Caches that several machines use: read in place, kept small, thrown away."""
