"""What is seen of the proxy: metrics now, logs and traces as they come."""
