"""How bytes travel: sockets, streams, servers."""

import os

# gRPC's core writes a line to standard error for each handshake that fails, which any stranger can cause; its own default level is louder than it says.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
