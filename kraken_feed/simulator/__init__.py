"""Simulate Kraken's private side on loopback: REST, WebSocket v1 and v2 on one port.

It is one exchange with one account, or several with a key each: tokens, subscriptions, snapshots, sequences, a flow of
orders that a seed repeats, order entry, and faults by script or at random. Its frames look as recorded and documented
ones do (tests/frames names the sources), and its ledger holds what it published, byte for byte. It is not Kraken:
nothing of theirs is in it or is asked by it, order entry knows limit and market orders, there are no public feeds and
no margin, and its limits are as documented, not as measured. It shares no code with the client: both sides agreeing on
the same mistake would hide it.

    kraken-feed simulate --scenario faults.toml --ledger ledger.jsonl

prints the URLs and a key as one line of JSON and serves until a signal. In a test, `net.server.Server` gives sockets to
an `exchange.Exchange`, which is pure: time is an argument, chance comes from the seed. A scenario (`faults.scenario`):

    [[fault]]                     # the first connection is cut after six seconds …
    kind = "drop"
    on_connect = 1
    after = 6.0
    code = 1001

    [[fault]]                     # … and the next token is no good
    kind = "expired_token"
    on_token = 2

Besides faults, which happen at a moment, an exchange can have quirks, which hold for the whole run: what Kraken's
documents allow and clients do not expect (`kraken-feed simulate --quirk list`).

Each package and module imports only from those above it in this list (tests/test_layers.py):

    quirks/     standing behaviours, and spellings of JSON
    market/     accounts: orders, fills, balances, entries; the truth about them
    access/     API keys and tokens
    faults/     what can go wrong, and when
    world       all of that: the exchange without its connections
    rest/       REST calls, answered out of the world
    wire/       one connection: v1 and v2, subscriptions, order entry
    strike      what a fault does to a connection
    exchange    the world with its connections, in time
    net/        sockets: HTTP and WebSockets
    demo        the exchange of `kraken-feed demo`
    main        `kraken-feed simulate`

Read `exchange` first, then `wire.peer`. Importing this package loads nothing else.
"""
