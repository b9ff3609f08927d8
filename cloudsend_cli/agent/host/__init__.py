"""cloudsend's agent: starts, watches, stops and reports attempts on one host. PROTOCOL.md tells files and frames.

The modules of this package are put on hosts as one zip file, which Python executes (`client.agent_source`, ADR 0007).
Standard library only, Python 3.6 and later, Linux; they import each other by relative imports alone, as the package
has another name there.

Who does what. `attach` is a pipe to the daemon, which it starts or replaces as needed. One daemon (single-threaded)
holds the queue and the connections. Runners, forked from it and reused, execute one attempt at a time each; a runner
owns the claim, the process tree, the time limit and the exit record, and outlives the daemon. What must survive is in
files; the daemon's memory can be rebuilt from them at any moment.

From below: texts, encoding, loading, disk, protocol, machine · records, processes, files, outputs, spec · orphans,
spawning, execution, runner, clearing · waiting, holding, peer, hands, news, journal, attempts, recovery · owners,
claims, orders, inventory, transfers, sweeping, forgetting, following, requests · session, daemon · home, hung,
starting, attach, main. Whatever the daemon may need it imports at its start: the zip may be gone later, and Python's
own files as well.
"""
