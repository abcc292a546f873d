"""One file per policy: configuration in, decision out.  None knows that the others exist."""
