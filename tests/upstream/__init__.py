"""Servers that stand in for backends: one that follows a script, one that replays recorded answers."""
