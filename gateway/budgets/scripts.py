"""The ledger's scripts, read once."""

from __future__ import annotations

from gateway.store.script import Script


def _read(name: str) -> Script:
    return Script.read("gateway.budgets", name, "lua/shared.lua", f"lua/{name}.lua")


class Scripts:
    """One attribute for each file in `lua/`; what each does stands at its top."""

    def __init__(self) -> None:
        self.hold = _read("hold")
        self.extend = _read("extend")
        self.settle = _read("settle")
        self.settle_many = _read("settle_many")
        self.book = _read("book")
        self.renew = _read("renew")
        self.expire = _read("expire")
        self.epoch = _read("epoch")
        self.recall = _read("recall")
        self.putback = _read("putback")
        self.left = _read("left")
        self.rebuild = _read("rebuild")
        self.tenants = Script.read("gateway.budgets", "tenants", "lua/tenants.lua")
