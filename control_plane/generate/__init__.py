"""From the mesh's state to what one proxy is told: pure functions, golden-tested."""
