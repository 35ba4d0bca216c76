"""The container test's search for secrets finds them wherever the border of a chunk falls."""

import pytest

from tests.containers.leaks import found_in

NEEDLES = {"password": b"s3cret-word", "token": b"t0ken"}


@pytest.mark.parametrize("size", range(1, 40))
def test_a_secret_is_found_across_the_borders_of_chunks(size):
    text = b"layer one " + b"s3cret-word" + b" layer two"
    chunks = [text[start : start + size] for start in range(0, len(text), size)]
    assert found_in(chunks, NEEDLES) == {"password"}


def test_what_is_not_there_is_not_found():
    assert found_in([b"s3cret", b"_word t0", b"_ken"], NEEDLES) == set()


def test_every_secret_is_named():
    assert found_in([b"t0ken s3cret-word"], NEEDLES) == {"password", "token"}
