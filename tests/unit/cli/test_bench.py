import json

import pytest

from gateway.cli.bench_cascade import Asked, Pair, Question, cells_of, questions
from gateway.inference.events import DraftState


def test_questions_of_every_form(tmp_path):
    """CSV by column, JSON lines by member or first turn; what has none is passed over."""
    table = tmp_path / "a.csv"
    table.write_text('question,answer\n"One?",1.\n"Two?",2.\n,3.\n"Three?",\n')
    assert [one.text for one in questions(table).asked] == ["One?", "Two?", "Three?"]
    lines = tmp_path / "b.jsonl"
    rows = [{"turns": ["First?", "Then?"]}, {"prompt": "P?"}, {"question": "Q?", "answer": "A."}, {"x": 1}, [1]]
    lines.write_text("\n".join(map(json.dumps, rows)) + "\nno json\n")
    assert [one.text for one in questions(lines).asked] == ["First?", "P?", "Q?"]
    (tmp_path / "c.csv").write_text("other\nx\n")
    with pytest.raises(ValueError, match="no questions"):
        questions(tmp_path / "c.csv")


def test_shots_are_not_asked(tmp_path):
    """The first with answers are the examples; skip and limit count what is left."""
    table = tmp_path / "a.csv"
    table.write_text("question,answer\n" + "".join(f"Q{number}?,A{number}\n" for number in range(9)))
    found = questions(table, shots=2, skip=1, limit=3)
    assert found.shots == [Question("Q0?", "A0"), Question("Q1?", "A1")]
    assert [one.text for one in found.asked] == ["Q3?", "Q4?", "Q5?"]


def test_the_tables_figures():
    """Share at the edge, agreement there and in all, what was saved, and why the others were not the edge's."""

    def pair(cascade, cost, verdict, seconds):
        return Pair(Asked("x", cascade, cost, 0.1, seconds), Asked("y", "", 0.5, 0.1, 2.0), verdict)

    cells = cells_of(
        [
            pair("stands", 0.0, DraftState.CONFIRMED, 1.0),
            pair("stands", 0.0, DraftState.REPLACED, 1.0),
            pair("unsure", 0.5, DraftState.CONFIRMED, 3.0),
            pair("late", 0.5, DraftState.CONFIRMED, 4.0),
        ]
    )
    assert cells == [
        "4",
        "2 (50%)",
        "1 (50%)",
        "3 (75%)",
        "1 unsure, 1 late",
        "$1.0000; $2.0000",
        "50%",
        "3.00, 4.00",
        "2.00, 2.00",
    ]
    assert cells_of([pair("unsure", 0.5, DraftState.CONFIRMED, 1.0)])[1:3] == ["0 (0%)", "–"]
