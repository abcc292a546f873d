"""
A whole mesh on one machine: what `meshctl up` and `meshctl demo` do.

    desired       files → what should run (a unit for each workload)
    allocation    which free port belongs to whom
    reservation   hold a port for a process that will listen on it later
    environment   what an app is told about its mesh
    rundir        the one directory that everything is written to, and its lock
    process       one child: started, logged, restarted with backoff, stopped with its whole group
    observer      how each of them is: listening, restarting; written down for `meshctl status`
    supervisor    all of them together: the order of starting, of changing, of stopping
"""
