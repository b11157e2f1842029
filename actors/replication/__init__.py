"""Replication: publishing, delivery and acknowledgement."""
