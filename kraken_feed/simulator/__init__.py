"""Simulate Kraken's private side on loopback: REST, WebSocket v1 and v2 on one port.

It is one exchange with one account, or several with a key each. It has tokens, subscriptions, snapshots, sequences, a
flow of orders that a seed repeats, order entry, and faults by script or at random. Its frames look like recorded and
documented ones (tests/frames names the sources). Its ledger has what it published, byte for byte.

It is not Kraken. It contains nothing of Kraken's and sends nothing there. Order entry knows limit and market orders
only; there are no public feeds and no margin; the limits are the documented ones. It shares no code with the client:
tests would not see a mistake that both sides make.

    kraken-feed simulate --scenario faults.toml --ledger ledger.jsonl

prints the URLs and a key as one line of JSON and serves until a signal. In a test, `net.server.Server` gives sockets to
an `exchange.Exchange`, which is pure: time is an argument, chance comes from the seed.

Faults happen at a moment; `faults.scenario` shows how to write them. Quirks last for the whole run:
behaviours that Kraken's documents allow and clients do not expect (`kraken-feed simulate --quirk list`).

Each package and module imports only from those above it in this list (tests/unit/test_layers.py):

    quirks/     behaviours that last for the whole run, and spellings of JSON
    market/     accounts: orders, fills, balances, ledger entries
    access/     API keys and tokens
    faults/     what can go wrong, and when
    world       the exchange without its connections
    rest/       answers to REST calls
    wire/       one connection: v1 and v2, subscriptions, order entry
    strike      what a fault does to a connection
    exchange    the world with its connections, in time
    net/        sockets: HTTP and WebSockets
    demo        the exchange of `kraken-feed demo`
    main        `kraken-feed simulate`

Read `exchange` first, then `wire.peer`. Importing this package loads nothing else.
"""
