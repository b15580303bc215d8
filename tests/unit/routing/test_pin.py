from gateway.inference.beginning import beginning_of
from gateway.inference.deployment import FREE, Backend, Deployment
from gateway.inference.request import InferenceRequest, Message
from gateway.policy.facts import Facts
from gateway.routing.decide import decide
from gateway.routing.pin import pinned
from tests.policy_folder import FILES, loaded


def at(name, region):
    return Deployment(
        id=name, backend=Backend(name=name, type="openai", base_url="http://x", region=region), model="m", price=FREE
    )


PLACES = [at("a1", "eu-west"), at("a2", "eu-west"), at("b1", "us-east"), at("b2", "us-east")]


def ids(beginning, fails=()):
    return [place.id for place in pinned(PLACES, beginning, fails=frozenset(fails), edge_last=True)]


def test_conversations_spread_and_stay():
    """Each has an order of its own, always the same; over many, every place is the first of about as many."""
    firsts = [ids(beginning)[0] for beginning in range(1, 2_001)]
    assert all(ids(beginning) == ids(beginning) for beginning in range(1, 20))
    assert all(400 < firsts.count(place.id) < 600 for place in PLACES)


def test_a_failing_deployment_hands_over_within_its_region():
    """Its conversations go to the next in the same region; all others stay where they are."""
    for beginning in range(1, 200):
        before = ids(beginning)
        after = ids(beginning, fails={"a1"})
        assert after[-1] == "a1"
        assert [name for name in before if name != "a1"] == after[:-1]
        if before[0] == "a1":
            assert after[0] == "a2"


def asked(*turns, **more):
    messages = tuple(Message("user" if number % 2 else "assistant", text) for number, text in enumerate(turns))
    return InferenceRequest(
        surface="chat", model="large", fields={}, messages=(Message("system", "be nice"), *messages[1:]), **more
    )


def test_a_conversation_is_known_by_its_beginning_however_long_it_grows():
    """The instructions and the user's first words: turns that follow change nothing, other first words do."""
    first = beginning_of(asked("", "hello"))
    assert first == beginning_of(asked("", "hello", "hi", "how are you?", "fine"))
    assert first != beginning_of(asked("", "good evening"))
    alone = InferenceRequest(surface="chat", model="m", fields={}, messages=(Message("user", "hello"),))
    grown = InferenceRequest(
        surface="chat", model="m", fields={}, messages=(Message("user", "hello"), Message("assistant", "hi"))
    )
    assert beginning_of(alone) == beginning_of(grown)


def test_clients_that_cut_their_history_may_name_the_conversation():
    """`metadata.conversation` comes before the messages."""
    named = {"metadata": {"conversation": "c-17"}}
    assert beginning_of(asked("", "hello", **named)) == beginning_of(asked("", "something else", **named))


def test_a_route_pins_among_what_constraints_and_health_left(tmp_path):
    """The pinned order is the decision's; what fails now is asked last all the same."""
    routes = FILES["routes.yaml"].replace("mode: cloud_only", "mode: cloud_only\n    pin: conversation")
    policy = loaded(tmp_path, routes=routes)
    facts = [
        Facts(tenant_name="acme", feature="batch", model="large", prompt_tokens=10, prefix=number)
        for number in range(1, 60)
    ]
    firsts = {decide(policy, one).deployments[0].id for one in facts}
    assert len(firsts) == 2
    for one in facts:
        failing = decide(policy, one).deployments[0].id
        other = decide(policy, msgspec_replace(one, unhealthy=frozenset({failing})))
        assert other.deployments[0].id != failing


def msgspec_replace(facts, **changes):
    from msgspec.structs import replace

    return replace(facts, **changes)
