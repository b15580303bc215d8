"""Fixtures that many tests share: a real store, a real edge, a scripted upstream and a whole gateway around them."""

from tests.edge_fixture import edge_socket
from tests.gateway_fixture import start_gateway, upstream
from tests.store_fixture import store, valkey_url

__all__ = ["edge_socket", "start_gateway", "store", "upstream", "valkey_url"]
