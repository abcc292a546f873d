"""How the proxy learns what to do: bootstrap, discovery stream, compiled snapshots."""
