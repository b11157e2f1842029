"""Membership: who is here (SWIM, on the memberlist wire)."""
