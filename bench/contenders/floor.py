"""The floor: what a tail costs that looks at nothing. `floor.py URL SUBSCRIPTION [buffered]`.

Every frame goes out as it came, and at once. With `buffered` the lines wait for Python's buffer to fill, or for a
moment, which a tail may not do to its reader: it shows what the system call is worth.
"""

import asyncio
import os
import sys

from websockets.asyncio.client import connect


async def tail(url: str, subscription: str) -> None:
    async with connect(url, compression=None, max_size=None) as socket:
        await socket.send(subscription)
        while True:
            frame = await socket.recv(decode=False)
            os.write(1, frame + b"\n")


async def buffered_tail(url: str, subscription: str) -> None:
    flushing = asyncio.create_task(flush_often())
    async with connect(url, compression=None, max_size=None) as socket:
        await socket.send(subscription)
        while not flushing.done():
            frame = await socket.recv(decode=False)
            sys.stdout.buffer.write(frame + b"\n")


async def flush_often() -> None:
    while True:
        await asyncio.sleep(0.05)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    asyncio.run((buffered_tail if sys.argv[3:] == ["buffered"] else tail)(sys.argv[1], sys.argv[2]))
