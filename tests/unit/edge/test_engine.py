import threading

import numpy as np
import pytest

from gateway.edge.engine import Engine
from gateway.edge.job import Prompt
from gateway.edge.protocol import Done, Failed, Load, Stats, Submit, Token
from gateway.edge.sampling import Surprise
from gateway.edge.scheduler import Limits
from gateway.errors import EdgeUnsuitable
from gateway.inference.request import Message, Sampling

END = 0
PIECES = [b"", *(bytes([letter]) for letter in b"abcdefghij"), "é".encode()[:1], "é".encode()[1:]]
ACCENT = (11, 12)
LIMITS = Limits(cells=200, sequences=6, active=2, waiting=2, step_rows=10)


class Script:
    """A model that answers with a given series of tokens, whatever the prompt, each step taking one second."""

    n_vocab = len(PIECES)
    spread = Surprise(n_vocab)
    eog = frozenset({END})
    model_bytes = 1
    kv_bytes = 2

    def __init__(self, answer: list[int]) -> None:
        self.answer = answer
        self.now_s = 100.0
        self.rows: dict[int, int] = {}
        self.said: dict[int, int] = {}

    def clock(self) -> float:
        return self.now_s

    def trim(self, sequence: int, length: int) -> None:
        self.said.pop(sequence, None)

    def copy(self, source: int, target: int, length: int) -> None:
        pass

    def decode(self, batch) -> bool:
        self.now_s += 1.0
        self.rows = {row: job.produced for row, job in batch.sampled}
        self.aborted = False
        self.during()
        return not self.aborted

    def abort(self) -> None:
        self.aborted = True

    def during(self) -> None:
        """What happens while a step is decoded."""

    def logits(self, row: int) -> np.ndarray:
        said = self.rows[row]
        values = np.zeros(self.n_vocab, dtype=np.float32)
        values[self.answer[said] if said < len(self.answer) else END] = 5.0
        return values

    def piece(self, token: int) -> bytes:
        return PIECES[token]

    def word(self, token: int) -> bytes:
        return PIECES[token] or b"<end>"

    def grammar(self, text: str) -> "OnlyLetters":
        if text == "broken":
            raise EdgeUnsuitable("no grammar")
        return OnlyLetters(int(text))


class OnlyLetters:
    """Allows so many tokens, none of them the end, and then nothing."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.asked_for_all = 0

    def allows(self, token: int) -> bool:
        return token != END and self.left > 0

    def restrict(self, row: np.ndarray) -> np.ndarray | None:
        self.asked_for_all += 1
        if not self.left:
            return None
        allowed = row.copy()
        allowed[END] = -np.inf
        return allowed

    def accept(self, token: int) -> None:
        assert self.allows(token)
        self.left -= 1


class Bench:
    """An engine over a script, and what it delivered."""

    def __init__(self, answer: list[int]) -> None:
        self.script = Script(answer)
        self.delivered: list[tuple[object, object]] = []
        self.load = Load()
        self.engine = Engine(self.script, LIMITS, self.take, self.script.clock)

    def take(self, outputs, load) -> None:
        self.delivered += outputs
        self.load = load

    def submit(
        self, owner: object, number: int = 1, max_tokens: int = 50, prompt: int = 5, grammar: str = "", **fields
    ) -> None:
        request = Submit(id=number, messages=(Message("user", "x"),), max_tokens=max_tokens, **fields)
        first = number * 50
        self.engine.submit(
            owner, request, Prompt(list(range(first, first + prompt)), grammar), max_tokens, self.script.now_s
        )

    def run(self) -> None:
        while self.engine.turn():
            pass

    def of(self, owner: object, number: int = 1) -> list[object]:
        return [output for to, output in self.delivered if to is owner and output.id == number]

    def text(self, owner: object, number: int = 1) -> str:
        return "".join(output.text for output in self.of(owner, number) if isinstance(output, Token))


def test_an_answer_ends_where_the_model_ends_it():
    """The token that ends it is neither text nor counted, and times add up by the engine's clock."""
    bench = Bench([1, 2, 3])
    bench.submit(bench, prompt=25)
    bench.run()
    done = bench.of(bench)[-1]
    assert bench.text(bench) == "abc"
    assert isinstance(done, Done)
    assert (done.finish_reason, done.prompt_tokens, done.completion_tokens) == ("stop", 25, 3)
    assert (done.queue_s, done.prefill_s, done.decode_s) == (0.0, 3.0, 3.0)


def test_an_answer_ends_at_max_tokens():
    """Held-back text comes out with the last token."""
    bench = Bench([1, 2, 3, 4])
    bench.submit(bench, max_tokens=2, sampling=Sampling(stop=("bc",)))
    bench.run()
    assert bench.text(bench) == "ab"
    assert bench.of(bench)[-1].finish_reason == "length"


def test_a_stop_string_ends_the_answer():
    """Tokens of the stop string count, its text is never sent."""
    bench = Bench([1, 2, 3, 4])
    bench.submit(bench, sampling=Sampling(stop=("bc",)))
    bench.run()
    assert bench.text(bench) == "a"
    assert bench.of(bench)[-1].finish_reason == "stop"
    assert bench.of(bench)[-1].completion_tokens == 3


def test_a_character_of_two_tokens_comes_whole():
    """Each token has its frame and its log-probability, and the text waits for the whole character."""
    bench = Bench([1, *ACCENT])
    bench.submit(bench)
    bench.run()
    tokens = [output for output in bench.of(bench) if isinstance(output, Token)]
    assert [token.text for token in tokens] == ["a", "", "é"]
    assert all(len(token.logprobs) == len(token.entropies) == len(token.margins) == 1 for token in tokens)
    assert not any(token.told for token in tokens)


@pytest.mark.parametrize(
    ("sampling", "text", "told"),
    [
        ({}, "abc", [[b"a"], [b"b"], [b"c"]]),
        ({"stop": ("bx",)}, "abc", [[b"a"], [], [b"b", b"c"]]),
        ({"stop": ("bc",)}, "a", [[b"a"], [], []]),
        ({"stop": ("cx",)}, "abc", [[b"a"], [b"b"], [], [b"c"]]),
    ],
)
def test_log_probabilities_are_told_with_the_text_of_their_tokens(sampling, text, told):
    """Whoever asked gets those of each token that the text is made of, with alternatives; of a stop string none."""
    bench = Bench([1, 2, 3])
    bench.submit(bench, sampling=Sampling(top_logprobs=2, **sampling))
    bench.run()
    tokens = [output for output in bench.of(bench) if isinstance(output, Token)]
    assert bench.text(bench) == text
    assert [[said.piece for said in token.told] for token in tokens] == told
    for said in [said for token in tokens for said in token.told]:
        assert said.top[0] == (said.piece, said.logprob)
        assert len(said.top) == 2


def test_an_answer_without_a_token_is_an_answer():
    """A model may end at once."""
    bench = Bench([])
    bench.submit(bench)
    bench.run()
    assert [type(output) for output in bench.of(bench)] == [Done]


def test_nothing_is_delivered_after_a_cancel():
    """Once the loop has read the cancel, its request is silent, and the others go on."""
    bench = Bench([1] * 30)
    bench.submit(bench, 1)
    bench.submit(bench, 2)
    bench.engine.turn()
    bench.engine.turn()
    before = len(bench.of(bench, 1))
    bench.engine.cancel(bench, 1)
    bench.run()
    assert len(bench.of(bench, 1)) == before
    assert isinstance(bench.of(bench, 2)[-1], Done)


def test_a_step_for_nobody_is_aborted():
    """A cancel that comes in mid-step ends the step when it served nobody else, and only then."""
    bench = Bench([1] * 30)
    bench.submit(bench, 1)
    bench.submit(bench, 2)
    cancels = [1, 2]
    aborted = []

    def cancel_one() -> None:
        bench.engine.cancel(bench, cancels.pop(0))
        aborted.append(bench.script.aborted)

    bench.script.during = cancel_one
    bench.engine.turn()
    bench.engine.turn()
    assert aborted == [False, True]
    assert not bench.engine.turn()
    bench.script.during = lambda: None
    bench.submit(bench, 3)
    bench.run()
    assert isinstance(bench.of(bench, 3)[-1], Done)


def test_cancelling_what_is_unknown_changes_nothing():
    """A cancel that crosses the last frame, or names another worker's request, is nothing."""
    bench = Bench([1])
    bench.submit(bench)
    bench.engine.cancel(bench, 99)
    bench.engine.cancel("somebody else", 1)
    bench.run()
    bench.engine.cancel(bench, 1)
    bench.run()
    assert isinstance(bench.of(bench)[-1], Done)


def test_all_of_a_gone_workers_requests_end():
    """Running and waiting ones, of this worker only."""
    bench = Bench([1] * 30)
    for number in (1, 2, 3):
        bench.submit("gone", number)
    bench.submit("here")
    bench.engine.turn()
    bench.engine.cancel_all("gone")
    bench.engine.ask_stats("here", 9)
    bench.engine.turn()
    stats = bench.of("here", 9)[0]
    assert isinstance(stats, Stats)
    assert (stats.active + stats.waiting, stats.cancelled) == (1, 3)


def test_a_full_queue_refuses():
    """What does not fit the batch and the queue is refused at once, and said why."""
    bench = Bench([1] * 10)
    bench.submit(bench, 1)
    bench.submit(bench, 2)
    bench.engine.turn()
    for number in (3, 4, 5):
        bench.submit(bench, number)
    bench.engine.turn()
    refused = bench.of(bench, 5)
    assert [(type(output), output.code) for output in refused] == [(Failed, "edge_overloaded")]
    bench.run()
    assert isinstance(bench.of(bench, 4)[-1], Done)


def test_a_refused_request_of_another_worker_is_told_to_that_worker():
    """When one tenant's request makes room for another's, the one that asked for it hears of it."""
    bench = Bench([1] * 10)
    for number in (1, 2):
        bench.submit("flood", number, tenant="flood")
    bench.engine.turn()
    for number in (3, 4):
        bench.submit("flood", number, tenant="flood")
    bench.submit("other", 1, tenant="other")
    bench.run()
    assert isinstance(bench.of("flood", 4)[-1], Failed)
    assert isinstance(bench.of("other", 1)[-1], Done)


def test_a_first_token_that_would_come_late_is_not_begun():
    """What is read before it and what it has to read, at the measured rate, decide; what is known does not count."""
    bench = Bench([1] * 3)
    bench.submit(bench, 1, prompt=40)
    bench.run()
    assert bench.engine.prefill_rate == pytest.approx(10, rel=0.1)
    bench.submit(bench, 2, prompt=40, ttft_within_s=3.0)
    bench.engine.turn()
    assert isinstance(bench.of(bench, 2)[0], Failed)
    bench.submit(bench, 3, prompt=40, ttft_within_s=5.0)
    bench.run()
    assert isinstance(bench.of(bench, 3)[-1], Done)
    bench.submit(bench, 3, prompt=40, ttft_within_s=0.5)
    bench.run()
    assert isinstance(bench.of(bench, 3)[-1], Done)


def test_the_figures_tell_reading_and_producing_apart():
    """Tokens and seconds of both, and batch size, add up."""
    bench = Bench([1, 2, 3, 4])
    bench.submit(bench, prompt=20)
    bench.run()
    bench.engine.ask_stats(bench, 7)
    bench.engine.turn()
    stats = bench.of(bench, 7)[0]
    assert (stats.prefill_tokens, stats.prefill_s) == (20, 2.0)
    assert (stats.decode_tokens, stats.decode_s) == (4, 4.0)
    assert (stats.steps, stats.rows, stats.finished) == (6, 24, 1)
    assert stats.cells_active == 0


def test_the_loop_sleeps_until_there_is_work_and_ends_when_told():
    """`run` in a thread: a note wakes it, `stop` ends it."""
    bench = Bench([1, 2])
    got_done = threading.Event()
    bench.engine._deliver = lambda outputs, _load: [got_done.set() for _, output in outputs if isinstance(output, Done)]
    thread = threading.Thread(target=bench.engine.run)
    thread.start()
    bench.submit(bench)
    assert got_done.wait(5)
    assert bench.engine.step_age_s() == 0
    bench.engine.stop()
    thread.join(5)
    assert not thread.is_alive()


def test_a_grammar_holds_the_answer_and_ends_it():
    """What the model would say is replaced where it is refused, and the answer ends when nothing is allowed."""
    bench = Bench([1, END, 2, 3])
    bench.submit(bench, grammar="3")
    bench.run()
    (done,) = [output for _, output in bench.delivered if isinstance(output, Done)]
    assert (done.finish_reason, done.completion_tokens) == ("stop", 3)


def test_a_grammar_that_cannot_be_followed_is_refused():
    """The request fails by itself, and others go on."""
    bench = Bench([1])
    bench.submit(bench, 1, grammar="broken")
    bench.submit(bench, 2)
    bench.run()
    outputs = [output for _, output in bench.delivered]
    assert [output.code for output in outputs if isinstance(output, Failed)] == ["edge_unsuitable"]
    assert [output.id for output in outputs if isinstance(output, Done)] == [2]
