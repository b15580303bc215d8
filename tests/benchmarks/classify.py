"""What looking for personal data costs: `python -m tests.benchmarks.classify`.

Prints microseconds for texts of 2 KB, for a long conversation, and for texts made to be slow.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from functools import partial

import msgspec

from gateway.classification.classifier import Classifier, Recognizer
from gateway.inference.request import InferenceRequest

ROUNDS, CALLS = 25, 200
SIZE = 2_048

PROSE = "The committee met in March and talked about the new library for an hour; 17 people came, and 3 of them spoke. "
GERMAN = (
    "Die Behörde prüft – wie üblich – alle Anträge, „sofern“ sie vollständig sind; das dauert größtenteils 14 Tage. "
)
LOG = "2024-01-31T12:30:00.123Z INFO order=48151623 took 0.0042 s, id 550e8400-e29b-41d4-a716-446655440000 v1.26\n"
LETTER = (
    "Dear support, I ordered a lamp (order 4539 5787 6362 1487) on 12.03.2024 and it never came. Please write to "
    "anna.schmidt@web.de or call me at +49 30 901820. You may refund the 49.90 EUR to my card 4111 1111 1111 1111. "
)
EVERYTHING = (
    " mail bob.smith@corp.co.uk or call +49 30 901820, card 4111 1111 1111 1111, login from 95.90.242.7, IBAN "
    "DE89 3704 0044 0532 0130 00, SSN 536-90-4399, key sk-ant-api03-" + "a1B2" * 20 + " and so on. "
)
ALPHABETS = {
    "digits and spaces": "0123456789 ",
    "digits and signs": "0123456789 -.()/",
    "addresses": "ab@. ",
    "hex and colons": "abcdef0123456789: ",
    "capitals and digits": "ABCDEFGHXYZ0123456789 ",
    "escapes": '\\nu00"4',
}


def around(middle: str, filler: str) -> str:
    """`middle` with `filler` on both sides, 2 KB in all."""
    half = (SIZE - len(middle)) // 2
    fill = filler * (SIZE // len(filler) + 1)
    return (fill[:half] + middle + fill)[:SIZE]


def microseconds(call: Callable[[], object], calls: int = CALLS) -> tuple[float, float]:
    """The median and the best of several rounds, in microseconds a call."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(calls):
            call()
        rounds.append((time.perf_counter() - started) / calls * 1e6)
    return statistics.median(rounds), min(rounds)


def main() -> None:
    """Print the tables."""
    started = time.perf_counter()
    classifier = Classifier(Recognizer())
    print(f"compiled in {(time.perf_counter() - started) * 1e3:.0f} ms")
    texts = {
        "clean English": around("", PROSE),
        "clean German": around("", GERMAN),
        "a log full of numbers": around("", LOG),
        "mixed: mail, phone, card, order": around(LETTER, PROSE),
        "one of every kind": around(EVERYTHING, PROSE),
    }
    for name, text in texts.items():
        request = InferenceRequest(
            surface="chat",
            model="large",
            messages=(),
            fields={"messages": msgspec.Raw(msgspec.json.encode([{"role": "user", "content": text}]))},
        )
        median, best = microseconds(partial(classifier.classify, [text]))
        from_fields, _ = microseconds(partial(classifier.classify_request, request))
        spans = classifier.classify([text]).spans
        print(f"  {name:34} {median:7.1f} µs (best {best:.1f}; from the request {from_fields:.1f})  {spans}")
    print("100 KB made to be slow, and what comes of it:")
    for name, alphabet in ALPHABETS.items():
        text = "".join(random.Random(1).choices(alphabet, k=100_000))
        found = classifier.classify([text])
        print(f"  {name:34} {found.seconds * 1e3:7.1f} ms  {found.unread or 'read'}")


if __name__ == "__main__":
    main()
