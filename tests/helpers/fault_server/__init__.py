"""
A server that misbehaves as each request asks, and counts what it has executed.

    python -m tests.helpers.fault_server --ports 8080 8081 8082     (or `FaultServer` of `handle.py`)

It speaks HTTP/1.1 and HTTP/2 with prior knowledge on one port, gRPC over the latter.  The further ports
are two more endpoints of the same server (`control.py`).  A request
says in `x-fault` what is to go wrong with it (`fault.py` has the words) and in `x-id` who it is.
Without the former it is answered 200 and its own id.

    x-fault: at=body+3 do=reset            three bytes of the answer's body, then RST
    x-fault: at=request do=goaway          a GOAWAY that says: not processed
    x-fault: status=503 first=2            the first two times that this id comes
    x-fault: at=head do=close reused       before the answer, on a connection that served before

**Executed** is what counts: an app has done its work when it has read the whole request, whatever
becomes of the answer.  So a fault at `request` comes before the work, one at `head`, `body` or
`end` after it.  An app that acts on what it has read so far says `executes`.

What no request can ask for (nobody listens, nobody answers) is a mode of the whole server, set from
outside (`control.py`), as are the counts.
"""
