"""One file a peer. Each has ``Peer``, its adapter, and what its workers import."""
