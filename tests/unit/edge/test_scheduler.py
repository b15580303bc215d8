import pytest

from gateway.edge.job import Job
from gateway.edge.scheduler import Batch, Limits, Scheduler


class Contents:
    """A KV cache that only remembers how long each sequence is, and what was asked of it."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def trim(self, sequence: int, length: int) -> None:
        self.calls.append(("trim", sequence, length))

    def copy(self, source: int, target: int, length: int) -> None:
        self.calls.append(("copy", source, target, length))


def scheduler(**limits) -> Scheduler:
    sizes = {"cells": 200, "sequences": 8, "active": 4, "waiting": 8, "step_rows": 10, "growth_tokens": 5}
    return Scheduler(Limits(**(sizes | limits)), Contents())


def job(number: int, prompt: list[int] | int, max_tokens: int = 5, **fields) -> Job:
    tokens = list(range(number * 1_000, number * 1_000 + prompt)) if isinstance(prompt, int) else list(prompt)
    return Job(key=(0, number), tokens=tokens, max_tokens=max_tokens, **fields)


def step(plan: Scheduler, token: int = 7) -> Batch:
    batch = plan.plan(0.0)
    assert batch is not None
    plan.commit(batch)
    for _, sampled in batch.sampled:
        plan.accept(sampled, token)
    return batch


def rows_of(batch: Batch) -> dict[int, int]:
    return {part.key[1]: rows for part, rows in batch.parts}


def test_nothing_to_do_is_no_batch():
    """Without jobs there is no step."""
    assert scheduler().plan(0.0) is None


def test_a_prompt_is_read_in_portions():
    """A long prompt takes so many rows a step and no more; only its last row gives a token."""
    plan = scheduler()
    plan.submit(job(1, 25))
    batches = [step(plan) for _ in range(3)]
    assert [rows_of(batch) for batch in batches] == [{1: 10}, {1: 10}, {1: 5}]
    assert [len(batch.sampled) for batch in batches] == [0, 0, 1]
    assert batches[2].positions == list(range(20, 25))


def test_a_long_prompt_stops_nobody_for_long():
    """Whoever already sees text gets the next token with each step of another's prompt."""
    plan = scheduler()
    plan.submit(job(1, 3, max_tokens=50))
    step(plan)
    plan.submit(job(2, 100))
    assert [rows_of(step(plan)) for _ in range(6)] == [{1: 1, 2: 10}] * 6


def test_where_attention_is_slow_reading_and_producing_take_turns():
    """Two steps of another's prompt, and then one without it; what fits into one step goes together all the same."""
    plan = scheduler(turns=True)
    plan.submit(job(1, 3, max_tokens=50))
    step(plan)
    plan.submit(job(2, 8))
    batch = step(plan)
    assert rows_of(batch) == {1: 1, 2: 8}
    assert batch.parts[0][0].key[1] == 1
    plan.submit(job(3, 100))
    turns = [rows_of(step(plan)) for _ in range(6)]
    assert turns == [{3: 10}, {3: 10}, {1: 1, 2: 1}, {3: 10}, {3: 10}, {1: 1, 2: 1}]


def test_prompts_are_read_one_after_the_other():
    """The first prompt is finished before the next is begun: the median waits less than if all were read at once."""
    plan = scheduler()
    for number in (1, 2, 3):
        plan.submit(job(number, 8))
    assert [rows_of(step(plan)) for _ in range(3)] == [{1: 8, 2: 2}, {1: 1, 2: 6, 3: 4}, {1: 1, 2: 1, 3: 4}]


def test_a_crowd_reads_side_by_side():
    """When many read, some share a step: the median waits longer, the last does not."""
    plan = scheduler(active=12, sequences=16, cells=600)
    for number in range(1, 13):
        plan.submit(job(number, 20))
    assert rows_of(step(plan)) == {1: 3, 2: 3, 3: 2, 4: 2}
    few = scheduler(active=12, sequences=16, cells=600)
    for number in range(1, 9):
        few.submit(job(number, 20))
    assert rows_of(step(few)) == {1: 10}


def test_a_crowd_reads_what_it_has_in_common_once():
    """Those that begin with what another is just reading wait for it and copy it; in the end nobody reads it again."""
    plan = scheduler(active=12, sequences=16, cells=4_000, step_rows=64)
    shared = list(range(300))
    crowd = [job(number, [*shared, 1_000 + number]) for number in range(1, 13)]
    for one in crowd:
        plan.submit(one)
    for _ in range(4):
        assert rows_of(step(plan)) == {1: 64}
    for _ in range(3):
        step(plan)
    assert all(one.produced for one in crowd)
    assert [one.cached_tokens for one in crowd] == [0, *[300] * 11]


def test_a_common_beginning_is_read_once():
    """A job finds what the one before it has just read, while that still runs."""
    plan = scheduler(step_rows=20)
    first, second = job(1, list(range(15))), job(2, [*range(12), 99])
    plan.submit(first)
    step(plan)
    plan.submit(second)
    assert rows_of(step(plan)) == {1: 1, 2: 1}
    assert second.cached_tokens == 12
    assert ("copy", first.sequence, second.sequence, 12) in plan._memory.calls


def test_the_last_prompt_token_is_always_read_again():
    """A prompt that is known in full still needs its last token's logits."""
    plan = scheduler()
    for number in (1, 2):
        same = job(number, list(range(9)), max_tokens=1)
        plan.submit(same)
        batch = step(plan)
        plan.finish(same)
        assert rows_of(batch) == {number: 9 if number == 1 else 1}


def test_what_was_read_for_a_cancelled_job_is_kept():
    """Work that is done is not thrown away: the next job with this beginning finds it."""
    plan = scheduler()
    long = job(1, list(range(40)))
    plan.submit(long)
    step(plan)
    plan.cancel(long)
    again = job(2, list(range(40)))
    plan.submit(again)
    step(plan)
    assert again.cached_tokens == 10
    assert plan.active == [again]


def test_a_waiting_job_that_is_cancelled_never_begins():
    """Cancelled in the queue is gone."""
    plan = scheduler(active=1)
    first, second = job(1, 5), job(2, 5)
    plan.submit(first)
    plan.submit(second)
    step(plan)
    plan.cancel(second)
    plan.finish(first)
    assert plan.plan(0.0) is None


def test_isolated_jobs_share_nothing():
    """A prefix of one domain is not seen from another, running or kept."""
    plan = scheduler()
    plan.submit(job(1, list(range(9)), domain="tenant a"))
    step(plan)
    other = job(2, list(range(9)))
    plan.submit(other)
    step(plan)
    assert other.cached_tokens == 0


def test_kept_prefixes_give_way_to_what_runs():
    """The least recently used go first, and only as many as are needed."""
    plan = scheduler(cells=40, step_rows=30)
    for number in (1, 2):
        one = job(number, 15, max_tokens=1)
        plan.submit(one)
        step(plan)
        plan.finish(one)
    plan.submit(job(3, 20, max_tokens=2))
    step(plan)
    assert len(plan.prefixes) == 1
    assert plan.prefixes.match("", list(range(2_000, 2_015)))[1] == 15


def test_running_out_of_cells_costs_the_youngest_its_place():
    """The younger job waits and is read again with what it had produced; the older never stops."""
    plan = scheduler(cells=40, growth_tokens=5, step_rows=30)
    old, young = job(1, 12, max_tokens=28), job(2, 12, max_tokens=28)
    plan.submit(old)
    plan.submit(young)
    while young in plan.active or not young.produced:
        step(plan)
    produced = list(young.tokens)
    assert plan.counters.preemptions == 1
    while old.produced < old.max_tokens:
        assert old in [part for part, _ in step(plan).parts]
    plan.finish(old)
    step(plan)
    assert young in plan.active
    assert young.tokens[: len(produced)] == produced
    assert young.cached_tokens == 0


def test_an_interactive_job_takes_the_place_of_a_background_one():
    """When all places are taken by background work, the newest of it goes back to the queue."""
    plan = scheduler(active=2)
    background = [job(number, 4, max_tokens=20, priority="background") for number in (1, 2)]
    for one in background:
        plan.submit(one)
    step(plan)
    plan.submit(job(3, 4))
    batch = step(plan)
    assert set(rows_of(batch)) == {1, 3}
    assert list(plan.queue) == [background[1]]


def test_an_aborted_step_leaves_everything_as_it_was():
    """After `undo` the same rows are planned again."""
    plan = scheduler()
    plan.submit(job(1, 25))
    step(plan)
    free = plan.cells.free
    batch = plan.plan(0.0)
    plan.undo(batch)
    assert plan.cells.free == free
    assert plan.plan(0.0) == batch


def test_one_sequence_for_everything_is_enough():
    """With no sequence to spare for prefixes, the matched one itself is used."""
    plan = scheduler(active=1, sequences=1)
    for number in (1, 2, 3):
        one = job(number, [*range(8), number], max_tokens=1)
        plan.submit(one)
        step(plan)
        plan.finish(one)
        assert one.cached_tokens == (8 if number > 1 else 0)


@pytest.mark.parametrize("wrong", [{"tokens": []}, {"max_tokens": 0}, {"max_tokens": 500}])
def test_a_job_that_can_never_be_served_is_not_taken(wrong):
    """No prompt, nothing to produce, or more than the cache holds."""
    fields = {"key": (0, 1), "tokens": [1, 2], "max_tokens": 5} | wrong
    with pytest.raises(ValueError, match="needs a prompt"):
        scheduler().submit(Job(**fields))
