"""Transparent capture: the packet filter rules that lead an app's traffic into its sidecar."""
