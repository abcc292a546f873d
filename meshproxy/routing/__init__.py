"""Which route a request takes: specs compiled into matchers when a snapshot arrives."""
