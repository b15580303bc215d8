"""Files in the store: uploaded line by line, and the results of batches; each its tenant's, and gone when it ends.

An upload is kept in pieces of whole lines, so that neither it nor a batch of it is ever in memory as a whole. Results
are not copied into a file: it is read from what was noted of each line (`batches`). Where the cache is encrypted, so is
all of it. What a tenant's files take together is bounded, those included that are being uploaded.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
import zlib
from collections.abc import AsyncIterator, Sequence

import msgspec
import structlog

from gateway.cache.entry import EntryCodec
from gateway.cache.sealing import Sealer
from gateway.errors import BodyTooLarge, InvalidRequest, NotFound, StoreUnavailable
from gateway.jobs.lines import LONGEST_LINE_BYTES, Lines, Piece
from gateway.store.client import PREFIX, Store
from gateway.store.script import Script
from gateway.wire.openai_files import FileObject

KEPT_S = 7 * 86_400
"""How long a file is kept, in seconds, unless its `expires_after` says otherwise."""
MOST_FILE_BYTES = 100 * 1024 * 1024
_MOST_FILES = 1_000
_GROWING_S = 3_600
"""How long the pieces of an unfinished upload are kept, should its gateway die."""
_pack = msgspec.msgpack.Encoder().encode


class FileMeta(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a file beside its content."""

    id: str
    filename: str
    purpose: str
    bytes: int
    created: int
    expires: int
    pieces: list[int]
    """Lines of each piece."""
    urls: list[str] = []
    """That its lines ask for."""
    of_batch: str = ""
    """The record of the batch that it is made of; empty: it was uploaded."""
    errors: bool = False
    """Of such a batch: the errors, not the results."""

    def object(self) -> FileObject:
        """As clients see it."""
        return FileObject(
            id=self.id,
            bytes=self.bytes,
            created_at=self.created,
            expires_at=self.expires,
            filename=self.filename,
            purpose=self.purpose,
        )


class Files:
    """One for all requests of a worker process. `most_bytes` bounds what a tenant's files take together."""

    def __init__(self, store: Store, sealer: Sealer | None, *, most_bytes: int) -> None:
        self._store = store
        self.codec = EntryCodec(2 * LONGEST_LINE_BYTES, sealer)
        self.most_bytes = most_bytes
        self._reserve = Script.read("gateway.jobs", "reserve", "lua/reserve.lua")

    def upload(self, tenant: str) -> Upload:
        """A new file, to be filled."""
        return Upload(self, tenant)

    async def get(self, tenant: str, file_id: str) -> FileMeta | None:
        """The tenant's file of that id; None: there is none, or no longer. Raises StoreUnavailable."""
        name = file_name(tenant, file_id)
        data = await self._store.get(name)
        if data is None:
            return None
        try:
            return msgspec.msgpack.decode(self.codec.open(data, name), type=FileMeta)
        except (zlib.error, ValueError) as error:
            structlog.get_logger().warning("file_unreadable", reason=str(error))
            return None

    async def piece(self, tenant: str, file_id: str, number: int) -> bytes:
        """A piece of an uploaded file.

        Raises:
            NotFound: it was deleted meanwhile, or cannot be read.
            StoreUnavailable
        """
        name = f"{file_name(tenant, file_id)}:{number}"
        data = await self._store.get(name)
        if data is None:
            raise NotFound(f"The file {file_id!r} was deleted while it was in use.")
        return self.opened(data, name)

    def opened(self, data: bytes, name: str) -> bytes:
        """What was kept under a name.

        Raises:
            NotFound: it cannot be read: its key is not here any more.
        """
        try:
            return self.codec.open(data, name)
        except (zlib.error, ValueError) as error:
            structlog.get_logger().warning("file_unreadable", reason=str(error))
            raise NotFound("What was kept of this file cannot be read any more.") from None

    async def content(self, tenant: str, meta: FileMeta) -> AsyncIterator[bytes]:
        """An uploaded file's bytes, piece by piece.

        Raises:
            NotFound: it was deleted meanwhile.
        """
        for number in range(len(meta.pieces)):
            yield await self.piece(tenant, meta.id, number)

    async def ids(self, tenant: str, *, newest_first: bool) -> list[str]:
        """The ids of a tenant's files. Raises StoreUnavailable."""
        order = _tenant_keys(tenant)[0]
        command = "ZREVRANGE" if newest_first else "ZRANGE"
        return [file_id.decode() for file_id in await self._store.command(command, order, 0, -1)]

    async def metas(self, tenant: str, ids: Sequence[str]) -> list[FileMeta]:
        """What is known of those that are still there. Raises StoreUnavailable."""
        found = await asyncio.gather(*(self.get(tenant, file_id) for file_id in ids))
        return [meta for meta in found if meta is not None]

    async def delete(self, tenant: str, meta: FileMeta) -> None:
        """Forget a file. Raises StoreUnavailable."""
        await self.forget(tenant, meta.id, 0 if meta.of_batch else len(meta.pieces))

    async def forget(self, tenant: str, file_id: str, pieces: int) -> None:
        """Take a file's parts out of the store. Raises StoreUnavailable."""
        name, (order, sizes, ends) = file_name(tenant, file_id), _tenant_keys(tenant)
        names = (name, *(f"{name}:{number}" for number in range(pieces)))
        await asyncio.gather(*(self._store.command("UNLINK", one) for one in names))
        for command, key in (("ZREM", order), ("HDEL", sizes), ("ZREM", ends)):
            await self._store.command(command, key, file_id)

    async def put(self, tenant: str, meta: FileMeta, *, bounded: bool) -> None:
        """Note a file whose content is there; not `bounded`, whatever room there is. Raises StoreUnavailable."""
        name, life_s = file_name(tenant, meta.id), max(1, meta.expires - int(time.time()))
        await self.reserve(tenant, meta.id, meta.bytes, life_s=life_s, bounded=bounded, listed=True)
        await self._store.set(name, self.codec.close(_pack(meta), name), ttl_s=life_s)

    async def put_piece(self, tenant: str, file_id: str, number: int, data: bytes, *, life_s: int) -> None:
        """Keep a piece. Raises StoreUnavailable."""
        name = f"{file_name(tenant, file_id)}:{number}"
        await self._store.set(name, self.codec.close(data, name), ttl_s=life_s)

    async def expire(self, names: Sequence[str], life_s: int) -> None:
        """Have pieces end in so many seconds. Raises StoreUnavailable."""
        await asyncio.gather(*(self._store.command("EXPIRE", name, life_s) for name in names))

    async def reserve(
        self, tenant: str, file_id: str, size: int, *, life_s: int, bounded: bool = True, listed: bool = False
    ) -> None:
        """Take room for a file.

        Raises:
            BodyTooLarge: the tenant's files would take more together than they may.
            InvalidRequest: there are too many.
        """
        limits = (self.most_bytes, _MOST_FILES) if bounded else (0, 0)
        place = str(time.time_ns() // 1_000) if listed else ""
        args = (file_id, size, life_s, *limits, place)
        answer = await self._store.script(self._reserve, _tenant_keys(tenant), args)
        if answer == 0:
            message = f"Your files would take more than {self.most_bytes:,} bytes together: delete some first."
            raise BodyTooLarge(message, param="file", code="files_too_large")
        if answer == -1:
            message = f"There are {_MOST_FILES:,} files already: delete some first."
            raise InvalidRequest(message, param="file", code="too_many_files")


class Upload:
    """A file that grows. Leaving it unfinished takes out of the store what is there of it."""

    def __init__(self, files: Files, tenant: str) -> None:
        self.id = f"file-{secrets.token_hex(12)}"
        self._files = files
        self._tenant = tenant
        self._until = time.monotonic() + _GROWING_S / 2
        self._lines = Lines(min(MOST_FILE_BYTES, files.most_bytes))
        self._pieces: list[int] = []
        self._kept = 0

    async def add(self, data: bytes) -> None:
        """Check and keep the next bytes. Raises as `Lines.feed` and `Files.reserve`."""
        if time.monotonic() > self._until:  # its first pieces would end before its last one comes
            raise InvalidRequest("The file takes too long to come.", param="file", code="request_timeout")
        for piece in self._lines.feed(data):
            await self._keep(piece)

    async def finish(self, filename: str, purpose: str, *, life_s: int) -> FileMeta:
        """All of it is here: from now on it is a file. Raises as `Lines.end` and `Files.reserve`."""
        for piece in self._lines.end():
            await self._keep(piece)
        names = [f"{file_name(self._tenant, self.id)}:{number}" for number in range(len(self._pieces))]
        await self._files.expire(names, life_s)
        now = int(time.time())
        meta = FileMeta(
            id=self.id,
            filename=filename,
            purpose=purpose,
            bytes=self._kept,
            created=now,
            expires=now + life_s,
            pieces=self._pieces,
            urls=sorted(self._lines.urls),
        )
        await self._files.put(self._tenant, meta, bounded=True)
        return meta

    async def drop(self) -> None:
        """It is not to be."""
        try:
            await self._files.forget(self._tenant, self.id, len(self._pieces))
        except StoreUnavailable as error:  # what is left ends by itself
            structlog.get_logger().warning("upload_left_behind", reason=error.message)

    async def _keep(self, piece: Piece) -> None:
        self._kept += len(piece.data)
        await self._files.reserve(self._tenant, self.id, self._kept, life_s=_GROWING_S)
        number = len(self._pieces)
        self._pieces.append(piece.lines)
        await self._files.put_piece(self._tenant, self.id, number, piece.data, life_s=_GROWING_S)


def file_name(tenant: str, file_id: str) -> str:
    """The record's key in the store; its pieces stand beside it."""
    parts = msgspec.msgpack.encode((tenant, file_id))
    return f"{PREFIX}file:{{{hashlib.blake2b(parts, digest_size=20).hexdigest()}}}"


def _tenant_keys(tenant: str) -> tuple[str, str, str]:
    """A tenant's files in their order, their sizes, and when they end."""
    name = f"{PREFIX}files:{{{hashlib.blake2b(tenant.encode('utf-8', 'surrogatepass'), digest_size=20).hexdigest()}}}"
    return name, f"{name}:sizes", f"{name}:ends"
