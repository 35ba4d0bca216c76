"""A state document says what it is, and shows when it is no longer that."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arb_ray.engine.state_document import StateVersions, document_flaw, encode_document

DATA = {"state": "active", "limits": {"daily_usdt": "100.0"}}


def test_a_document_is_sound_and_says_when_and_which_writing_it_is():
    value = encode_document(DATA, 5, 7)
    assert document_flaw(value) == ""
    found = json.loads(value)
    assert list(found) == ["schema", "at_ns", "version", "crc32", "data"]
    assert (found["schema"], found["at_ns"], found["version"], found["data"]) == (2, 5, 7, DATA)


@given(st.data())
def test_a_flipped_bit_anywhere_in_the_data_is_seen(data):
    value = bytearray(encode_document(DATA, 5, 7))
    begin = value.index(b'"data":') + len(b'"data":')
    at = data.draw(st.integers(begin, len(value) - 2))
    value[at] ^= 1 << data.draw(st.integers(0, 7))
    assert document_flaw(bytes(value))


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_document_is_seen(cut):
    assert "no document" in document_flaw(encode_document(DATA, 5, 7)[:-cut])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b'{"schema":1,"at_ns":1,"data":{}}', "no document of schema 2"),
        (encode_document(DATA, 1, 1).replace(b'"schema":2', b'"schema":3'), "its schema is 3"),
        (encode_document([1], 1, 1), "no object"),
        (b"", "no document"),
    ],
)
def test_other_forms_are_told_by_what_they_lack(value, words):
    assert words in document_flaw(value)


@given(st.lists(st.integers(0, 2**62), min_size=2))
def test_versions_only_grow_whatever_the_clock_does(instants):
    versions = StateVersions()
    numbers = [versions.next(now_ns) for now_ns in instants]
    assert numbers == sorted(set(numbers))


def test_a_version_goes_by_the_clock_so_that_it_grows_over_restarts():
    assert StateVersions().next(1_700_000_000_000_000_000) == 1_700_000_000_000
