"""The agent: holds leases for one machine and runs their attempts.

A pure core (`core`, with `slots`, `inputs`, `pace`, `crew` and `reports`) and a trio
shell around it. User code never runs in the agent's own process, which must answer
heartbeats. Knows nothing of other agents.

The nursery tree of the agent's process::

    run_agent
    ├── signals: the first drains, the second stops
    └── Agent.run
        ├── publish: makes the code's schedules known, once
        ├── ServerLink.watch: limits of attempts, while some have any
        ├── ServerLink.hand_on: what one pool lets go of, to others that wait for it
        ├── ServerLink.gather: what attempts say, as long as some do
        ├── ServerLink: connects for ever
        │   └── a connection: read, write, heartbeats, giving back what waits too long
        └── one per executor
            ├── ProcessExecutor: a seat for each slot, one task that looks after held-up workers,
            │   and one for each cancel under way
            │   └── a seat: waits for its worker's end, reads its pipe, writes to its pipe, and two read what it prints
            ├── CoroutineExecutor: one seat
            └── CommandExecutor: one task for each command, with two that read its output

And its processes, each watched by the one above it::

    agent
    └── warden: forks runners; one thread, no user code
        └── runner, for each worker and command: adopts all that comes from it,
            └── worker or command      and ends when nothing of that is left

Sockets and pipes close with the agent, however it dies: then every runner kills
what it watches over. The kernel kills a worker or command whose runner dies.
An agent that is stopped closes nothing: with an exclusive attempt, a runner also
kills when it has not heard from the agent for as long as the server might bear.
"""
