"""
Which endpoint gets the next request.

    priority levels      `locality`: near endpoints first, far ones as those fail
      └ slow start       `slow_start`: who is new takes only part of what it is offered
          └ algorithm    `peak_ewma` (default), `least_request`, `round_robin`, `weighted_random`,
                         `ring_hash` and `maglev` (`consistent_hashing`)

Each layer is a `Balancer`: something that picks one of the endpoints it was made for.  Layers that
have nothing to do are left out when configuration or endpoints change (`balancing`), so that a
request usually meets the algorithm alone.  A balancer is made for one set of endpoints and one set
of weights; what changes comes with a new balancer, and what must survive that (measured latency,
requests in flight, when it joined) is kept by the endpoints themselves.

Beside the layers stands what binds a request to an endpoint: the key that consistent hashing looks
at (`hash_key`) and a session that a token names (`session`); `affinity` is what one request has of
both.

Called from: `Cluster` (`upstream/cluster.py`), `Exchange` and `Relay`.
Configured by: `LoadBalancingSpec`, `SessionPersistenceSpec`.
"""
