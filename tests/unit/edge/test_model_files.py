import multiprocessing
import os
from pathlib import Path

import pytest

from gateway.edge.model_files import SHIPPED_MODEL, Formats, check_gguf, find_model, prepare_model
from gateway.errors import EdgeUnavailable

GGUF = b"GGUF\3\0\0\0"


def quantize(source: Path, target: Path, name: str) -> None:
    target.write_bytes(GGUF + name.encode() + b" of " + source.read_bytes()[:4])


def never(source: Path, target: Path, name: str) -> None:
    raise AssertionError("made again")


def out_of_room(source: Path, target: Path, name: str) -> None:
    target.write_bytes(GGUF[:3])
    raise OSError(28, "No space left on device")


def test_the_shipped_model_is_found_by_name():
    """The starter model is in the installation, and is a GGUF file."""
    path = find_model(SHIPPED_MODEL)
    check_gguf(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "not a GGUF"), (b"GG", "not a GGUF"), (b"<html>404", "not a GGUF"), (b"GGUF\x63\0\0\0", "version 99")],
)
def test_what_is_no_gguf_is_refused(tmp_path, content, says):
    """The error names the file and what is wrong with it."""
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(EdgeUnavailable, match=says) as caught:
        find_model(str(path))
    assert str(path) in caught.value.message


@pytest.mark.parametrize("name", ["missing.gguf", "."])
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name):
    """A missing file and a folder are said so."""
    with pytest.raises(EdgeUnavailable, match="cannot be read"):
        find_model(str(tmp_path / name))


def test_a_model_by_path_is_loaded_as_it_is(tmp_path):
    """Only the shipped model is converted."""
    path = tmp_path / "own.gguf"
    path.write_bytes(GGUF)
    assert prepare_model(str(path), tmp_path, never) == (path, "")


def test_the_faster_format_is_made_once(tmp_path):
    """The second start takes what the first made."""
    made, trouble = prepare_model(SHIPPED_MODEL, tmp_path, quantize)
    assert made.read_bytes() == GGUF + b"q8_0 of GGUF"
    assert trouble == ""
    assert prepare_model(SHIPPED_MODEL, tmp_path, never) == (made, "")


@pytest.mark.parametrize("damage", ["cut", "flipped", "no proof"])
def test_a_damaged_file_is_made_again(tmp_path, damage):
    """What does not hash to what was made is never loaded."""
    made, _ = prepare_model(SHIPPED_MODEL, tmp_path, quantize)
    whole = made.read_bytes()
    if damage == "cut":
        made.write_bytes(whole[:-1])
    elif damage == "flipped":
        made.write_bytes(whole[:-1] + b"?")
    else:
        made.with_suffix(".sha256").unlink()
    again, _ = prepare_model(SHIPPED_MODEL, tmp_path, quantize)
    assert again.read_bytes() == whole


def test_when_it_cannot_be_made_the_shipped_file_serves(tmp_path):
    """A full disk costs speed, not the edge, and leaves no half file behind."""
    path, trouble = prepare_model(SHIPPED_MODEL, tmp_path, out_of_room)
    assert path == find_model(SHIPPED_MODEL)
    assert "No space left" in trouble
    assert not list(tmp_path.glob("models/*.part")) + list(tmp_path.glob("models/*.gguf"))


def _die(state_dir: str) -> None:
    prepare_model(SHIPPED_MODEL, Path(state_dir), lambda *_: os._exit(9))


def test_a_crash_while_making_it_is_not_repeated_for_ever(tmp_path):
    """After two processes died in the middle, the shipped file serves, and the message says how to try again."""
    for _ in range(2):
        process = multiprocessing.get_context("spawn").Process(target=_die, args=(str(tmp_path),))
        process.start()
        process.join()
        assert process.exitcode == 9
    path, trouble = prepare_model(SHIPPED_MODEL, tmp_path, never)
    assert path == find_model(SHIPPED_MODEL)
    assert "delete" in trouble


def test_the_format_that_was_chosen_is_loaded(tmp_path):
    """A choice holds for the model's content, wherever the file is; another file is not touched by it."""
    own, copy, other = (tmp_path / name for name in ("own.gguf", "copy.gguf", "other.gguf"))
    own.write_bytes(GGUF + b"one")
    copy.write_bytes(GGUF + b"one")
    other.write_bytes(GGUF + b"two")
    Formats(own, tmp_path).choose("q4_0")
    made, _ = prepare_model(str(own), tmp_path, quantize)
    assert made.read_bytes().startswith(GGUF + b"q4_0")
    assert prepare_model(str(copy), tmp_path, never) == (made, "")
    assert prepare_model(str(other), tmp_path, never) == (other, "")
    Formats(own, tmp_path).choose("source")
    assert prepare_model(str(own), tmp_path, never) == (own, "")


@pytest.mark.parametrize("content", [b"", b"q99", b"../../etc", b"\xff\xfe"])
def test_a_choice_that_is_none_is_as_if_nothing_was_chosen(tmp_path, content):
    """A damaged note of the choice costs the choice, not the edge."""
    formats = Formats(find_model(SHIPPED_MODEL), tmp_path)
    formats.choose("q4_0")
    (tmp_path / "models" / f"{formats.key}.chosen").write_bytes(content)
    made, trouble = prepare_model(SHIPPED_MODEL, tmp_path, quantize)
    assert made.read_bytes().startswith(GGUF + b"q8_0")
    assert trouble == ""
