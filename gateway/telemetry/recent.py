"""The newest finished requests of a worker, for their tenants and for operators."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice

from gateway.telemetry.record import RequestRecord

_RECENT_REQUESTS = 1_000


class Recent:
    """The newest requests of this worker, so that a tenant can look its own up."""

    def __init__(self) -> None:
        self._records: OrderedDict[str, RequestRecord] = OrderedDict()
        self._last: dict[str, str] = {}

    def add(self, record: RequestRecord) -> None:
        """Remember a finished request, without what was said of each single token; the oldest is forgotten."""
        for attempt in record.attempts:
            attempt.logprobs, attempt.margins = [], []
        self._records[record.request_id] = record
        self._last[record.tenant] = record.request_id
        if len(self._records) > _RECENT_REQUESTS:
            _, oldest = self._records.popitem(last=False)
            if self._last.get(oldest.tenant) == oldest.request_id:
                del self._last[oldest.tenant]

    def newest(self, number: int, *, tenant: str | None = None) -> list[RequestRecord]:
        """The newest requests, of one tenant or of all, the newest first."""
        matching = (one for one in reversed(self._records.values()) if tenant is None or one.tenant == tenant)
        return list(islice(matching, number))

    def get(self, tenant: str, request_id: str | None) -> RequestRecord | None:
        """The tenant's request of that id, or its last one; never another tenant's."""
        record = self._records.get(request_id or self._last.get(tenant, ""))
        return record if record is not None and record.tenant == tenant else None
