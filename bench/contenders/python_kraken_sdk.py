"""python-kraken-sdk: its WebSocket client, printing each message as JSON. `python_kraken_sdk.py REST WEBSOCKET`.

Its 3.x speaks v2 only.
"""

import asyncio
import json
import os
import sys

from kraken.spot import SpotWSClient


async def on_message(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


async def main(rest: str, websocket: str) -> None:
    client = SpotWSClient(
        key=os.environ["KRAKEN_API_KEY"],
        secret=os.environ["KRAKEN_API_SECRET"],
        callback=on_message,
        no_public=True,
        rest_url=rest,
        auth_ws_url=websocket.removesuffix("/v2"),  # the client appends it
    )
    async with client:
        await client.subscribe(params={"channel": "executions", "snap_trades": True, "snap_orders": True}, req_id=1)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
