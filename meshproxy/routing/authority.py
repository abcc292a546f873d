"""The one spelling of an authority (RFC 9110 section 7.2), by which two are compared."""

from ipaddress import AddressValueError, IPv6Address


def normalized(authority: bytes) -> bytes | None:
    """
    Return the one spelling of an authority: lower case, no trailing dot, always a port.

    Names are case-insensitive and the dot of the root is optional, so ``A.example.`` and
    ``a.example:80`` are the same host; who compared only one spelling could be passed by with
    another (CVE-2021-39155).  None when it is not an authority.
    """
    if authority.startswith(b"["):
        host, bracket, port = authority.partition(b"]")
        if not bracket or (port and not port.startswith(b":")):
            return None
        port = port[1:]
        try:
            host = b"[%s]" % IPv6Address(host[1:].decode("ascii")).compressed.encode()
        except (AddressValueError, UnicodeDecodeError):
            return None
    else:
        host, _, port = authority.partition(b":")
        host = host.lower().removesuffix(b".")
        if b".." in host or host[:1] == b"." or host[-1:] == b".":  # an empty label: nobody's name
            return None
    if not host or b"*" in host:
        return None
    if not port:
        return host + b":80"
    if not port.isdigit() or len(port) > 5:
        return None
    return b"%s:%d" % (host, int(port))
