"""What any room needs to keep something on disk: the data directory and its LMDB environments."""
