"""Finds out what a prompt holds, so that policy can act on it: labels such as `personal`.

A label can be added here and removed nowhere. This room is pure: it reads the text of a request and returns names; it
does no I/O, keeps nothing of what it read, and decides nothing.
"""
