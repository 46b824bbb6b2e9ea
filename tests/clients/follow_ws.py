"""A client with Python's `websockets`: follows one channel, comes back by itself, and reports each
step as a line of JSON. `leave` and `return` on standard input make it close and come back."""

import asyncio
import contextlib
import json
import random
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from canonical import channel_hash

CHANNEL = {"environment": "prod", "set": "storefront", "app": "web"}
RETRY_SECONDS_MAX = 0.5


def report(**event):
    print(json.dumps(event), flush=True)


class Follower:
    def __init__(self, url, key):
        self.url = url.replace("http", "ws", 1) + "/v1/stream"
        self.key = key
        self.items = {}
        self.cursor = None
        self.chunks = {}
        self.reconnect_seconds = None
        self.may_connect = asyncio.Event()
        self.may_connect.set()
        self.socket = None

    async def run(self):
        while True:
            await self.may_connect.wait()
            try:
                await self.follow()
            except (OSError, ConnectionClosed, InvalidHandshake, InvalidMessage, EOFError) as error:
                report(event="lost", what=type(error).__name__)
            wait = self.reconnect_seconds
            self.reconnect_seconds = None
            await asyncio.sleep(random.uniform(0, RETRY_SECONDS_MAX) if wait is None else wait)

    async def follow(self):
        headers = {"Authorization": f"Bearer {self.key}"}
        async with connect(
            self.url, subprotocols=["ecs.refresh.v1"], additional_headers=headers, max_size=8 << 20
        ) as socket:
            self.socket = socket
            report(event="open", protocol=socket.subprotocol)
            subscribe = {"type": "subscribe", "sub": 3, **CHANNEL}
            if self.cursor:
                subscribe["cursor"] = self.cursor
            await socket.send(json.dumps(subscribe))
            # The iteration ends quietly only for the codes 1000 and 1001.
            with contextlib.suppress(ConnectionClosed):
                async for message in socket:
                    await self.handle(socket, json.loads(message))
            report(event="closed", code=socket.close_code)

    async def handle(self, socket, frame):
        kind = frame["type"]
        if kind in ("hello", "bookmark"):
            return
        if kind == "resumed":
            report(event="resumed", mode=frame["mode"], why=frame["why"], revision=frame["revision"])
        elif kind in ("snapshot", "delta"):
            if self.apply(frame):
                revision, computed = self.cursor["revision"], channel_hash(self.items)
                is_right = computed == frame["hash"]
                report(
                    event="applied", kind=kind, epoch=self.cursor["epoch"], revision=revision,
                    hash=frame["hash"], computed=computed, isRight=is_right,
                )
                outcome = "applied" if is_right else "rejected"
                ack = {"type": "ack", "sub": 3, "revision": revision, "outcome": outcome}
                await socket.send(json.dumps(ack))
        elif kind == "goaway":
            self.reconnect_seconds = frame["reconnectMs"] / 1000
            report(event="goaway", reconnectMs=frame["reconnectMs"])
        else:
            report(event="unexpected", frame=frame)

    def apply(self, frame):
        """Applies a frame; whether the map is whole afterwards."""
        if frame["type"] == "delta":
            if frame["from"] != self.cursor["revision"]:
                raise ValueError(f"a delta from {frame['from']} at {self.cursor}")
            for key in frame["del"]:
                self.items.pop(key, None)
            self.items.update(frame["set"])
            self.cursor = {"epoch": self.cursor["epoch"], "revision": frame["to"]}
            return True
        if frame["chunk"] == 1:
            self.chunks = {}
        self.chunks.update(frame["items"])
        if frame["chunk"] < frame["chunks"]:
            return False
        self.items = self.chunks
        self.cursor = {"epoch": frame["epoch"], "revision": frame["revision"]}
        return True

    async def obey(self):
        """Reads orders until standard input ends."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            if line == b"leave\n":
                self.may_connect.clear()
                await self.socket.close()
            elif line == b"return\n":
                self.may_connect.set()


async def main():
    follower = Follower(*sys.argv[1:3])
    orders = asyncio.create_task(follower.obey())
    running = asyncio.create_task(follower.run())
    done, _ = await asyncio.wait({orders, running}, return_when=asyncio.FIRST_COMPLETED)
    running.cancel()
    for task in done:
        task.result()


asyncio.run(main())
