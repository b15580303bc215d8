import random

from gateway.edge.prefixes import Prefix, Prefixes, common_length


def test_common_length_is_that_of_a_plain_comparison():
    """The fast comparison finds what comparing one by one finds."""
    chance = random.Random(3)
    for _ in range(500):
        left = [chance.randrange(2) for _ in range(chance.randrange(40))]
        right = left[: chance.randrange(40)] + [chance.randrange(2) for _ in range(chance.randrange(10))]
        plain = next(
            (i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right))
        )
        assert common_length(left, right) == plain


def test_the_longest_common_beginning_is_found():
    """Of all kept sequences, the one that shares most is matched, and how much."""
    prefixes = Prefixes()
    prefixes.keep(Prefix(1, "", [1, 2, 9]))
    prefixes.keep(Prefix(2, "", [1, 2, 3, 4, 8]))
    match, length = prefixes.match("", [1, 2, 3, 4, 5])
    assert (match.sequence, length) == (2, 4)


def test_another_domains_prefixes_are_never_matched():
    """What is kept for one domain is unknown to all others."""
    prefixes = Prefixes()
    prefixes.keep(Prefix(1, "tenant a", [1, 2, 3]))
    assert prefixes.match("", [1, 2, 3]) == (None, 0)
    assert prefixes.match("tenant b", [1, 2, 3]) == (None, 0)


def test_a_longer_sequence_replaces_the_shorter_that_it_begins_with():
    """Two sequences, one the beginning of the other, are kept as one."""
    prefixes = Prefixes()
    assert prefixes.keep(Prefix(1, "", [1, 2])) == []
    assert prefixes.keep(Prefix(2, "", [1, 2, 3])) == [1]
    assert prefixes.keep(Prefix(3, "", [1, 2])) == [3]
    assert prefixes.sequences == [2]


def test_what_was_used_last_goes_last():
    """Use moves a sequence to the end of those to be dropped."""
    prefixes = Prefixes()
    prefixes.keep(Prefix(1, "", [1]))
    prefixes.keep(Prefix(2, "", [2]))
    prefixes.use(1)
    assert prefixes.sequences == [2, 1]
