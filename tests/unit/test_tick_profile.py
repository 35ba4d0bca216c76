"""The profile of the tick path counts a function once a sample, and its own lines apart."""

from benchmarks.tick_profile import Line, lines_of, stacks_of

RAW = (
    "run (loop.py);read (socket.py);decode (codec.py) 6",
    "run (loop.py);read (socket.py) 1",
    "run (loop.py);look (host.py);look (host.py) 3",
)


def test_a_function_is_counted_alone_by_its_own_samples_and_in_all_once_each():
    lines = lines_of(stacks_of(RAW), 10)
    assert lines == [
        Line("decode (codec.py)", 0.6, 0.6),
        Line("look (host.py)", 0.3, 0.3),
        Line("read (socket.py)", 0.1, 0.7),
    ]


def test_what_ran_most_comes_first_and_no_more_than_asked_for():
    assert [one.function for one in lines_of(stacks_of(RAW), 1)] == ["decode (codec.py)"]


def test_nothing_sampled_is_no_line():
    assert lines_of(stacks_of(()), 5) == []
