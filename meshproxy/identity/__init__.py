"""Who we are and who the peer is: SPIFFE IDs, certificates, TLS contexts."""
