import json
from collections import Counter
from pathlib import Path

import pytest

from gateway.classification.classifier import Classifier, Recognizer
from gateway.classification.kinds import Kind

LINES = Path(__file__).parents[2] / "data" / "personal_data.jsonl"
LEAST = {
    "card": (0.99, 0.92),
    "email": (0.99, 0.92),
    "iban": (0.99, 0.99),
    "ip": (0.99, 0.89),
    "national-id": (0.98, 0.96),
    "phone": (0.98, 0.94),
    "secret": (0.99, 0.95),
}
"""Least precision and recall on the labelled lines, as it stands in the README: measured, and rounded down."""


@pytest.fixture(scope="module")
def lines():
    """All labelled lines; a text in two parts is joined (see tests/data/README.md)."""
    read = [json.loads(line) for line in LINES.read_text("utf-8").splitlines()]
    return [(text if isinstance(text := line["text"], str) else "".join(text), set(line["kinds"])) for line in read]


@pytest.fixture(scope="module")
def classifier():
    """Everything is looked for, with time enough on any machine."""
    return Classifier(Recognizer(), limit_s=5)


def test_the_set_is_large_and_has_traps(lines):
    """At least 300 different lines, with every kind in 20 and more, and a third of them traps."""
    counts = Counter(kind for _, kinds in lines for kind in kinds)
    assert len({text for text, _ in lines}) >= 300
    assert set(counts) == set(map(str, Kind))
    assert min(counts.values()) >= 20
    assert sum(not kinds for _, kinds in lines) >= len(lines) / 3


def test_the_documentation_has_what_is_measured(lines):
    """The table in the README is that of the lines and of what is asserted here."""
    readme = (Path(__file__).parents[3] / "README.md").read_text("utf-8")
    counts = Counter(kind for _, kinds in lines for kind in kinds)
    for kind, (precision, recall) in LEAST.items():
        assert f"| {kind} | {counts[kind]} | {precision:.2f} | {recall:.2f} |" in readme
    traps = sum(not kinds for _, kinds in lines)
    assert f"On {len(lines)} lines" in readme
    assert f"{traps} of them traps" in readme


def test_precision_and_recall(lines, classifier):
    """Each kind is found, and nothing is taken for it, at least as often as the documentation says."""
    right, wrong, missed = Counter(), Counter(), Counter()
    for text, kinds in lines:
        found = set(classifier.classify([text]).spans)
        right.update(found & kinds)
        wrong.update(found - kinds)
        missed.update(kinds - found)
    print("\n| kind | lines | precision | recall |\n| --- | --- | --- | --- |")
    measured = {}
    for kind in LEAST:
        precision = right[kind] / (right[kind] + wrong[kind])
        recall = right[kind] / (right[kind] + missed[kind])
        measured[kind] = (precision, recall)
        print(f"| {kind} | {right[kind] + missed[kind]} | {precision:.3f} | {recall:.3f} |")
    for kind, (precision, recall) in LEAST.items():
        assert measured[kind][0] >= precision, kind
        assert measured[kind][1] >= recall, kind
