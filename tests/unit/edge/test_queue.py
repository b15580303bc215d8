from gateway.edge.job import Job
from gateway.edge.queue import FairQueue


def job(tenant: str, number: int = 0, priority: str = "interactive") -> Job:
    return Job(key=(0, number), tokens=[1], max_tokens=1, tenant=tenant, priority=priority)


def take(queue: FairQueue) -> Job:
    taken = queue.peek()
    queue.remove(taken)
    return taken


def test_the_tenant_that_was_served_least_is_next():
    """Tokens served decide between tenants, arrival decides within one."""
    queue = FairQueue(10)
    for number in range(3):
        queue.add(job("busy", number), [])
    queue.add(job("quiet", 7), [])
    queue.count("busy", 100)
    assert [take(queue).key[1] for _ in range(4)] == [7, 0, 1, 2]


def test_interactive_comes_before_background():
    """Priority counts before fairness."""
    queue = FairQueue(10)
    queue.add(job("new", 1, "background"), [])
    queue.add(job("old", 2), [])
    queue.count("old", 1_000)
    assert take(queue).key[1] == 2


def test_a_tenant_that_comes_back_has_saved_nothing_up():
    """After a pause a tenant starts at the level of those who wait or run, not at what it had left."""
    queue = FairQueue(10)
    queue.count("steady", 1_000)
    queue.add(job("late"), ["steady"])
    assert queue.served("late") == 1_000


def test_a_full_queue_refuses_the_newcomer_of_the_greediest():
    """When the newcomer's own tenant waits most, the newcomer is refused."""
    queue = FairQueue(2)
    queue.add(job("a", 1), [])
    queue.add(job("a", 2), [])
    newcomer = job("a", 3)
    assert queue.add(newcomer, []) is newcomer
    assert len(queue) == 2


def test_a_flood_gives_way_to_another_tenant():
    """When the queue is full of one tenant's requests, its newest makes room for another's first."""
    queue = FairQueue(3)
    flood = [job("flood", number) for number in range(3)]
    for one in flood:
        queue.add(one, [])
    assert queue.add(job("other"), []) is flood[2]
    assert [one.tenant for one in queue] == ["flood", "flood", "other"]


def test_background_gives_way_to_interactive():
    """When the queue is full, a background request makes room for an interactive one, never the reverse."""
    queue = FairQueue(1)
    waiting = job("a", 1, "background")
    queue.add(waiting, [])
    assert queue.add(job("b", 2), []) is waiting
    late = job("c", 3, "background")
    assert queue.add(late, []) is late


def test_a_job_that_is_put_back_is_first_of_its_tenant():
    """A job that has to begin again does not stand behind its tenant's newer ones, and is not refused."""
    queue = FairQueue(1)
    queue.add(job("a", 1), [])
    queue.put_back(job("a", 2))
    assert [take(queue).key[1] for _ in range(2)] == [2, 1]
    assert queue.peek() is None
