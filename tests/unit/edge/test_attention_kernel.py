import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import ggml_graph as ggml
from tests.ggml_graph import lib

pytestmark = pytest.mark.skipif(
    not {"AVX2", "FMA", "F16C", "BMI2"} <= ggml.features(), reason="llama.cpp is built for another kind of processor"
)


class Case:
    """Queries [stream, row, head, width], keys and values [stream, cell, head, width], and what each row sees."""

    def __init__(self, rng, seen, *, heads, sharing, width, size=1.0):
        streams, rows, cells = seen.shape
        self.seen, self.sharing, self.scale = seen, sharing, 1 / np.sqrt(width)
        self.q = (rng.standard_normal((streams, rows, heads * sharing, width)) * size).astype(np.float32)
        self.k = (rng.standard_normal((streams, cells, heads, width)) * size).astype(np.float16)
        self.v = (rng.standard_normal((streams, cells, heads, width)) * size).astype(np.float16)
        self.bias, self.sinks, self.slope, self.softcap = np.zeros(seen.shape), None, 0.0, 0.0

    def slopes(self):
        """ALiBi's for each head, as Press et al. 2022 define them for a power of two."""
        heads = self.q.shape[2]
        return self.slope and np.exp2(-self.slope / heads * np.arange(1, heads + 1))

    def expected(self):
        """In f64; and how far from it sums in f32 may be, for a step of rounding of one."""
        numbers = [ggml.dequantized(x) if x.dtype == ggml.Q8_0_BLOCK else x for x in (self.k, self.v)]
        k, v = (np.repeat(x.astype(np.float64), self.sharing, axis=2) for x in numbers)
        q = self.q.astype(np.float64) * self.scale
        scores = np.einsum("srhd,schd->srhc", q, k, optimize=True)
        reach = np.einsum("srhd,schd->srhc", np.abs(q), np.abs(k), optimize=True)
        if self.softcap:
            scores = self.softcap * np.tanh(scores / self.softcap)
        bias = np.where(self.seen, self.bias, -np.inf)[:, :, None, :]
        scores = scores + (bias * self.slopes()[:, None] if self.slope else bias)
        sinks = np.full(self.q.shape[2], -np.inf) if self.sinks is None else self.sinks.astype(np.float64)
        most = np.maximum(scores.max(-1), sinks)
        most = np.where(np.isinf(most), 0, most)
        weights = np.exp(scores - most[..., None])
        total = weights.sum(-1) + np.exp(sinks - most)
        weights /= np.where(total == 0, 1, total)[..., None]
        wrong = 4 + np.where(self.seen[:, :, None, :], reach, 0).max(-1)
        far = np.einsum("srhc,schd->srhd", weights, np.abs(v), optimize=True) * wrong[..., None]
        return np.einsum("srhc,schd->srhd", weights, v, optimize=True), far

    def compute(self, n_threads=1, spare=0):
        """The library's answer. `spare`: cells of the cache behind those that are looked at."""
        with ggml.graph() as g:
            q = lib.ggml_permute(g.context, g.tensor(self.q), 0, 2, 1, 3)
            k, v = (self.part_of_a_cache(g, x, spare) for x in (self.k, self.v))
            mask = g.tensor(np.where(self.seen, self.bias, -np.inf).astype(np.float16)[:, None])
            result = lib.ggml_flash_attn_ext(g.context, q, k, v, mask, self.scale, self.slope, self.softcap)
            if self.sinks is not None:
                lib.ggml_flash_attn_ext_add_sinks(result, g.tensor(self.sinks))
            return g.compute(result, self.q.shape, n_threads)

    @staticmethod
    def part_of_a_cache(g, x, spare):
        """The first cells of a cache that has more, all heads of a cell beside one another."""
        streams, cells, heads, blocks = x.shape
        cache = np.zeros((streams, cells + spare, heads, blocks), x.dtype)
        cache[:, :cells] = x
        width = blocks * (32 if x.dtype == ggml.Q8_0_BLOCK else 1)
        sizes, steps = (width, heads, cells, streams), reversed(cache.strides[:3])
        view = lib.ggml_view_4d(g.context, g.tensor(cache), *sizes, *steps, 0)
        return lib.ggml_permute(g.context, view, 0, 2, 1, 3)


def check(case, got, *, steps=2.0**-22):
    right, far = case.expected()
    assert np.isfinite(got).all()
    assert (np.abs(got - right) <= steps * far + 1e-37).all()


def sequences(rng, rows, cells, *, n, shared):
    """Rows of `n` sequences in one cache, whose cells lie anywhere; the first `shared` cells are everybody's."""
    owner, of_row = rng.integers(0, n, cells), np.sort(rng.integers(0, n, rows))
    behind = cells - rng.integers(0, max(cells // 4, 1), rows)
    mine = (owner == of_row[:, None]) & (np.arange(cells) < behind[:, None])
    return mine | (np.arange(cells) < shared)


def prompt(rng, rows, cells):
    """Rows of one prompt, each of which sees one cell more than the one before it."""
    first = rng.integers(1, max(cells - rows, 1) + 1)
    return np.arange(cells) < (first + np.arange(rows))[:, None]


def both(rng, rows, cells):
    """Some that produce, and a prompt behind them."""
    n = rng.integers(0, rows + 1)
    others = sequences(rng, n, cells, n=5, shared=cells // 3)
    return np.concatenate([others, prompt(rng, rows - n, cells)])


MASKS = {
    "one sequence": prompt,
    "many sequences": lambda rng, rows, cells: sequences(rng, rows, cells, n=8, shared=0),
    "a shared prefix": lambda rng, rows, cells: sequences(rng, rows, cells, n=8, shared=rng.integers(0, cells)),
    "a prompt beside those who produce": both,
    "holes": lambda rng, rows, cells: rng.random((rows, cells)) < rng.random((rows, 1)),
    "one cell each": lambda rng, rows, cells: np.arange(cells) == rng.integers(0, cells, (rows, 1)),
    "hardly anything": lambda rng, rows, cells: rng.random((rows, cells)) < 1 / cells,
    "everything": lambda rng, rows, cells: np.ones((rows, cells), bool),
    "nothing": lambda rng, rows, cells: np.zeros((rows, cells), bool),
}


@settings(max_examples=120, deadline=None)
@given(
    mask=st.sampled_from(sorted(MASKS)),
    rows=st.one_of(st.integers(1, 100), st.sampled_from([1, 2, 8, 31, 32, 33, 64, 65])),
    words=st.integers(1, 9),
    heads=st.sampled_from([(1, 1), (1, 3), (3, 1), (2, 3), (2, 4), (1, 8), (1, 7)]),
    width=st.sampled_from([16, 32, 48, 64, 80, 96, 112, 128, 160, 256]),
    streams=st.sampled_from([1, 1, 1, 2, 3]),
    n_threads=st.sampled_from([1, 2, 3, 5]),
    seed=st.integers(0, 2**32 - 1),
)
def test_attention(mask, rows, words, heads, width, streams, n_threads, seed):
    """All widths, heads, rows and cells, with what many sequences in one cache see of it."""
    rng = np.random.default_rng(seed)
    rows = min(rows, 25_000 // (heads[0] * heads[1] * width))  # as much as is computed in a moment
    seen = np.stack([MASKS[mask](rng, rows, words * 64) for _ in range(streams)])
    case = Case(rng, seen, heads=heads[0], sharing=heads[1], width=width)
    check(case, case.compute(n_threads, spare=64 * (seed % 2)))


@pytest.mark.parametrize("cells", [256, 512, 1024])
@pytest.mark.parametrize("width", [64, 80, 96, 128])
def test_as_much_as_a_cache_holds(cells, width):
    """Forty rows of a prompt and eight that produce, in caches as large as they are in use."""
    rng = np.random.default_rng(cells + width)
    seen = np.concatenate([sequences(rng, 8, cells, n=4, shared=100), prompt(rng, 40, cells)])
    case = Case(rng, seen[None], heads=1, sharing=3, width=width)
    check(case, case.compute(), steps=2.0**-21)


def test_threads_do_not_change_it():
    """On any number of threads, more than there are heads too, each bit is the same."""
    rng = np.random.default_rng(1)
    case = Case(rng, sequences(rng, 40, 256, n=6, shared=50)[None], heads=2, sharing=3, width=64)
    alone = case.compute()
    for n_threads in (2, 3, 5, 16):
        assert (case.compute(n_threads) == alone).all()


def test_one_after_another():
    """What a larger call left in a thread's memory does not come into the next."""
    rng = np.random.default_rng(2)
    for rows, cells, width, sharing in [(70, 512, 128, 3), (3, 64, 16, 1), (33, 192, 64, 8), (1, 64, 80, 1)]:
        case = Case(rng, sequences(rng, rows, cells, n=3, shared=9)[None], heads=1, sharing=sharing, width=width)
        check(case, case.compute(2))


@pytest.mark.parametrize("size", [1e-4, 5.0, 12.0])
def test_sizes(size):
    """From scores that are all alike, to one cell that outweighs all others by far, in whatever order they come."""
    rng = np.random.default_rng(3)
    for width in (64, 96):
        seen = MASKS["a shared prefix"](rng, 30, 320)
        case = Case(rng, seen[None], heads=2, sharing=3, width=width, size=size)
        check(case, case.compute(), steps=2.0**-21)


def test_ever_higher_scores():
    """Each 64 cells outweigh those before them, or hardly count beside them."""
    rng = np.random.default_rng(4)
    for order in (1, -1):
        case = Case(rng, MASKS["everything"](rng, 9, 448)[None], heads=1, sharing=3, width=64)
        case.q[:], case.k[:] = 1, np.linspace(-3, 3, 448)[None, ::order, None, None]
        check(case, case.compute())


def test_cells_that_nobody_sees():
    """What an unused cell holds, be it no number, comes into nothing."""
    rng = np.random.default_rng(5)
    case = Case(rng, MASKS["many sequences"](rng, 50, 256)[None], heads=2, sharing=3, width=64)
    unused = ~case.seen.any(1)[0]
    unused[::7] = True
    case.seen[:, :, unused] = False
    right = case.compute()
    case.k[:, unused], case.v[:, unused] = np.nan, np.inf
    assert (case.compute() == right).all()


@pytest.mark.parametrize("odd", [np.nan, np.inf])
@pytest.mark.parametrize("of", ["k", "v"])
def test_what_another_sequence_holds(of, odd):
    """What is no number, or infinite, comes into the rows that see it, and into none beside them."""
    rng = np.random.default_rng(8)
    for late in (False, True):  # those who do not see it see the first cells, or the last
        case = Case(rng, MASKS["many sequences"](rng, 12, 192)[None], heads=2, sharing=3, width=64)
        if late:
            case.seen[0, 6:, :100] = False
        bad = int(np.flatnonzero(case.seen[0, 0])[0])
        sees = case.seen[0, :, bad]
        right = case.compute()
        getattr(case, of)[0, bad] = odd
        got = case.compute(2)
        assert not np.isfinite(got[0, sees]).all()
        assert np.abs(got[0, ~sees] - right[0, ~sees]).max() < 1e-5


def test_rows_that_see_nothing():
    """They are zeros, and harm none beside them."""
    rng = np.random.default_rng(6)
    seen = MASKS["one sequence"](rng, 20, 128)
    seen[[0, 7, 19]] = False
    case = Case(rng, seen[None], heads=1, sharing=3, width=64)
    got = case.compute()
    assert (got[0, [0, 7, 19]] == 0).all()
    check(case, got)


def changed(rng, how):
    """A case that is not the kernel's, or the one that is nearest to those."""
    width = how.get("width", 64)
    cells = how.get("cells", 128)
    case = Case(rng, sequences(rng, 20, cells, n=4, shared=30)[None], heads=2, sharing=2, width=width)
    case.slope, case.softcap = how.get("slope", 0.0), how.get("softcap", 0.0)
    if case.slope:
        case.bias = np.broadcast_to(-np.arange(cells, dtype=np.float64)[::-1], case.seen.shape)
    if "sinks" in how:
        case.sinks = rng.standard_normal(4).astype(np.float32)
    if "f32" in how:
        case.k, case.v = case.k.astype(np.float32), case.v.astype(np.float32)
    for name in how.get("quantized", ()):
        blocks = np.empty((*case.k.shape[:-1], width // 32), ggml.Q8_0_BLOCK)
        blocks["factor"], blocks["whole"] = 1 / 64, rng.integers(-128, 128, (*blocks.shape, 32))
        setattr(case, name, blocks)
    return case


@pytest.mark.parametrize(
    "how",
    [
        {"sinks": True},
        {"softcap": 2.0},
        {"slope": 8.0},
        {"f32": True},
        {"quantized": "kv"},
        {"quantized": "k"},
        {"width": 40},
        {"width": 72},
        {"cells": 96},
    ],
    ids=str,
)
def test_what_is_left_to_llama_cpp(how):
    """Whatever changes the sums, or is laid out in another way, is computed by llama.cpp, as near as it does."""
    case = changed(np.random.default_rng(7), how)
    check(case, case.compute(2), steps=2.0**-10)
