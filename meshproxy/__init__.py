"""
The data plane: a sidecar proxy that one can read from top to bottom.

Start at `exchange.py`, the life of one request; `docs/life-of-a-request.md` walks through it.
Arrows point one way: words (message, refusal, contract) ← inner ring (codec, routing, policies,
exchange: no sockets, no clock) ← outer ring (downstream, upstream, identity) ← config, telemetry
← proxy.  `tests/test_architecture.py` keeps it so.
"""

__version__ = "0.1.0"
