"""Raft: what is agreed, and in which order."""
