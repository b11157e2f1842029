"""How bytes travel: sockets, streams, servers."""
