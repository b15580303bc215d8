import pytest

from gateway.classification.labels import MOST_LABELS, gather
from gateway.errors import InvalidRequest


def test_everybody_adds_and_nobody_removes():
    """Labels of tenant, header and metadata are joined, in lower case."""
    named = gather(tenant=frozenset({"eu"}), header="Health, personal", metadata="legal")
    assert named == {"eu", "health", "personal", "legal"}


def test_none_named_is_none():
    """A request without labels has its tenant's alone."""
    assert gather(tenant=frozenset(), header="", metadata=" , ,") == frozenset()


@pytest.mark.parametrize("name", ["../x", "a b", "é", "-a", "x" * 65, "a\nb", '"'])
def test_a_name_that_is_none_is_refused(name):
    """Leaving a label out in silence could send data where it must not go."""
    with pytest.raises(InvalidRequest) as failure:
        gather(tenant=frozenset(), header="", metadata=name)
    assert failure.value.param == "metadata.labels"


def test_too_many_are_refused():
    """The number of labels a client may name is bounded; the tenant's own do not count."""
    many = ",".join(f"l{number}" for number in range(MOST_LABELS + 1))
    with pytest.raises(InvalidRequest):
        gather(tenant=frozenset({"eu"}), header=many, metadata="")
    gather(tenant=frozenset({"eu"}), header=many.rpartition(",")[0], metadata="")
