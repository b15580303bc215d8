import time

import pytest

from gateway.errors import Unauthenticated
from gateway.jobs.asked import Who, policy_has_key
from gateway.policy.load import load_policy
from gateway.tenants.tenant import KeyOwner
from tests.gateway_fixture import policy_text


@pytest.fixture
def policy(tmp_path):
    (tmp_path / "policy.yaml").write_text(policy_text("http://127.0.0.1:1/v1"))
    return load_policy(tmp_path, {"UPSTREAM_KEY": "k"})


def test_whoever_asked_is_known_under_the_policy_in_force(policy):
    """The tenant is the policy's of now; a label that it had when it asked is kept, however the policy changed."""
    identity = Who(tenant="acme", key="prod", key_in_policy=True, labels=("health",)).identity(policy)
    assert (identity.tenant.name, identity.tenant.region, identity.key) == ("acme", "eu", "prod")
    assert identity.tenant.labels == {"health"}


@pytest.mark.parametrize("who", [Who(tenant="gone"), Who(tenant="acme", key="removed", key_in_policy=True)])
def test_whoever_may_not_any_more_gets_nothing(policy, who):
    """Nothing more is done for a tenant that is gone, nor in the name of a key that was removed."""
    with pytest.raises(Unauthenticated):
        who.identity(policy)


def test_a_key_that_never_stood_in_the_policy_cannot_be_removed_from_it(policy):
    """Who was known in another way, by a token or without a key, stays known as long as the tenant is."""
    assert Who(tenant="acme", key="a token's subject").identity(policy).key == "a token's subject"


def test_a_key_stands_in_the_policy_by_its_name(policy):
    """A key is known by its tenant and its name; another tenant's of the same name is another."""
    assert policy_has_key(policy, "acme", "prod")
    assert policy_has_key(policy, "other", "prod")
    assert not policy_has_key(policy, "acme", "removed")
    assert not policy_has_key(policy, "gone", "prod")


def test_a_key_that_is_over_stands_for_nobody(policy):
    """When a key's `not_after` has passed, what was begun with it ends; another key of its name keeps it going."""
    who = Who(tenant="acme", key="prod", key_in_policy=True)
    over = KeyOwner("acme", "prod", time.time() - 1)
    digests = [digest for digest, owner in policy.keys.items() if owner[:2] == ("acme", "prod")]
    for digest in digests:
        policy.keys[digest] = over
    with pytest.raises(Unauthenticated, match="is over"):
        who.identity(policy)
    policy.keys["f" * 64] = KeyOwner("acme", "prod", time.time() + 60)
    assert who.identity(policy).key == "prod"
