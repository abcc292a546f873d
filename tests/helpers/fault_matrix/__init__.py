"""What goes wrong, by protocol and policy, and what the client sees of it: data, and what it is tried on."""
