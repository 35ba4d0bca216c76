"""What the live terminal must show, at any size."""

import io

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from arb_ray.app.live_tables import price_text, way_text
from arb_ray.app.live_terminal import FrameRates, LiveView
from arb_ray.app.live_view import Moment, RowBudget, plain_line, render
from arb_ray.app.progress import Progress
from tests import status_examples as examples

RATES = {"feed:upbit@v": 812.3, "feed:binance_spot@v": 1_900.4}
SIZES = [(80, 24), (100, 40), (120, 45), (150, 50), (160, 60), (200, 60), (240, 80)]


def screen(status=None, context=None, *, width=120, height=45, elapsed_s=12.3):
    console = Console(
        record=True, width=width, height=height, file=io.StringIO(), force_terminal=True
    )
    picture = render(
        status or examples.status(),
        context or examples.context(),
        Moment(elapsed_s, RATES),
        width=width,
        height=height,
    )
    console.print(picture)
    return console.export_text()


def many_feeds():
    return {f"feed:{at}@v": examples.feed("upbit", frames=at) for at in range(4)}


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize(
    "status",
    [
        examples.status(),
        examples.status(tuple(f"SIM{at:03d}" for at in range(300))),
        examples.status(("BTC",)),
        examples.status(feeds=many_feeds()),
        examples.status(hosts={}, feeds={}, risk={}, persistence={}, missing=["risk:main@v"]),
    ],
    ids=["usual", "300 symbols", "one symbol", "four feeds", "nothing yet"],
)
def test_the_picture_never_exceeds_the_terminal(status, width, height):
    lines = screen(status, width=width, height=height).splitlines()

    assert len(lines) <= height
    assert max(len(line) for line in lines) <= width


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_part_is_there_at_every_size(width, height):
    text = screen(width=width, height=height)

    for part in ("Symbols", "Opportunities", "Paper trades", "Feeds", "Risk and totals"):
        assert part in text
    for word in ("lively: not a real market", "seed 7", "00:12 of 01:00", "risk active"):
        assert word in text
    for word in ("holding", "+34.0", "opened", "12.50 of 200.00", "realized +3.48", "no_edge"):
        assert word in text


@pytest.mark.parametrize(("width", "height"), [(120, 45), (160, 50), (200, 60)])
def test_twenty_symbols_fit_a_usual_terminal(width, height):
    text = screen(width=width, height=height)

    assert all(f"\n{symbol} " in text for symbol in examples.SYMBOLS)


def test_a_small_terminal_keeps_the_open_trades_and_says_what_it_left_out():
    text = screen(width=80, height=24)

    assert "\nADA " in text
    assert "\nNEAR " in text
    assert "and 15 more" in text


def test_of_idle_symbols_the_best_edges_are_kept():
    rows = [examples.symbol_row(f"S{at:02d}", net_bps=float(at)) for at in range(40)]
    host = examples.host([], rows=rows)
    text = screen(examples.status((), hosts={"host:000@v": host}), width=80, height=24)

    assert "S39" in text
    assert "S00" not in text


def test_a_symbol_without_books_shows_dashes_and_no_edge():
    empty = examples.symbol_row("NEW", bid_a_krw=0.0, ask_a_krw=0.0, gross_bps=0.0, net_bps=0.0)
    host = examples.host([], rows=[empty])
    text = screen(examples.status((), hosts={"host:000@v": host}), width=100)
    (line,) = [line for line in text.splitlines() if line.startswith("NEW")]

    assert "+0.0" not in line
    assert "+3.2" not in line
    assert line.split()[1] == "-"


def test_each_feed_shows_the_age_of_its_own_books():
    text = screen(width=120)
    ages = {
        line.split()[0]: line.split()[4]
        for line in text.splitlines()
        if line.startswith(("upbit ", "binance_spot "))
    }

    assert ages == {"upbit": "38", "binance_spot": "12"}


def test_an_opportunity_shows_each_cost_and_they_add_up():
    header, line = opportunity_of(screen(width=160))

    for title in ("gross", "fees in", "fees out", "spread", "slip", "buffer", "= net"):
        assert title in header
    numbers = [float(word) for word in line.split() if word[0] in "+-" or word == "0"]
    *terms, net = numbers
    assert sum(terms) == pytest.approx(net)


def test_a_narrow_opportunity_adds_up_too():
    _, line = opportunity_of(screen(width=80, height=40))

    *terms, net = [float(word) for word in line.split() if word[0] in "+-"]
    assert sum(terms) == pytest.approx(net)


def opportunity_of(text):
    lines = text.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("Opportunities"))
    return lines[at + 1], lines[at + 2]


def test_the_newest_comes_first():
    text = screen(width=160, height=60)
    times = [line.split()[0] for line in text.splitlines() if line.startswith("12:00:")]
    opportunities = times[: times.index(max(times), 2)] if times.count(max(times)) > 2 else times

    assert times[0] == max(times)
    assert opportunities == sorted(opportunities, reverse=True)


@pytest.mark.parametrize(
    ("changes", "words", "is_warned"),
    [
        ({"preset": "lively"}, "lively: not a real market", True),
        ({"preset": "stress"}, "stress: not a real market", True),
        ({"preset": "calibrated"}, "calibrated: simulated", False),
        ({"source": "paper", "preset": None}, "live public data", False),
        ({"source": "recorded", "preset": None}, "recorded frames", False),
    ],
)
def test_the_header_names_the_market_and_marks_an_unreal_one(changes, words, is_warned):
    context = examples.context(**changes)

    assert words in screen(context=context).splitlines()[0]
    assert context.is_realistic is not is_warned


def test_before_all_symbols_are_live_the_clock_does_not_run():
    assert "starting" in screen(elapsed_s=None).splitlines()[0]


def test_a_run_without_an_end_says_how_to_end_it():
    assert "until Ctrl-C" in screen(context=examples.context(duration_s=0.0))


def test_the_first_problem_stands_in_the_header():
    status = examples.status(missing=["feed:upbit@v"])

    assert "feed:upbit@v has not answered" in screen(status).splitlines()[1]


def test_a_halted_guard_says_why():
    status = examples.status(risk=examples.risk(state="halted", reason="daily loss reached"))
    text = screen(status)

    assert "risk halted" in text
    assert "daily loss reached" in text


@pytest.mark.parametrize("loss", ["0", "100", "200", "5000"])
def test_the_loss_bar_has_its_length_whatever_was_lost(loss):
    text = screen(examples.status(risk=examples.risk(daily_loss_usdt=loss)))
    (line,) = [line for line in text.splitlines() if "loss today" in line]

    bar = line.split("loss today ")[1].split(" ")[0]
    assert len(bar) == 20


def test_a_daily_limit_of_zero_is_a_full_bar():
    text = screen(examples.status(risk=examples.risk(daily_limit_usdt="0")))

    assert "█" * 20 in text


def test_no_opportunity_is_called_no_edge_only_after_decisions():
    idle = examples.host(["BTC"], lines=0)
    looked = examples.status(("BTC",), hosts={"host:000@v": idle})
    unseen = examples.status(
        ("BTC",), hosts={"host:000@v": msgspec.structs.replace(idle, decisions=0)}
    )

    assert "no edge was left after every cost" in screen(looked)
    assert "no edge was left after every cost" not in screen(unseen)


def test_markup_in_foreign_text_is_shown_and_not_obeyed():
    status = examples.status(risk=examples.risk(state="halted", reason="[bold]x[/nope]"))

    assert "[bold]x[/nope]" in screen(status)


@pytest.mark.parametrize(
    ("price", "text"),
    [
        (145_230_000.0, "145,230,000"),
        (96_123.4, "96,123.40"),
        (2_345.0, "2,345.000"),
        (0.0123, "0.01230000"),
        (0.00000839, "0.0000083900"),
        (1e-12, "0.0000000000"),
    ],
)
def test_prices_of_any_size_keep_seven_digits(price, text):
    assert price_text(price) == text


def test_a_price_that_is_not_there_is_a_dash():
    assert str(price_text(0.0)) == "-"


def test_ways_are_named_by_where_is_bought():
    assert way_text("long_a_short_b") == "U→B"
    assert way_text("long_b_short_a") == "B→U"
    assert way_text("") == ""


@given(rows=st.integers(-5, 90), symbols=st.integers(0, 400), is_side_by_side=st.booleans())
def test_the_budget_never_spends_more_rows_than_there_are(rows, symbols, is_side_by_side):
    budget = RowBudget.of(rows, symbols, is_side_by_side=is_side_by_side)

    assert min(budget.symbols, budget.opportunities, budget.trades) >= 1
    if is_side_by_side and rows >= 8:
        assert budget.symbols + max(budget.opportunities, budget.trades) + 4 <= rows
    elif not is_side_by_side and rows >= 9:
        assert budget.symbols + budget.opportunities + budget.trades + 6 <= rows


def test_frames_a_second_are_measured_over_the_last_seconds():
    rates = FrameRates()
    for second in range(20):
        status = examples.status(feeds={"f": examples.feed("upbit", frames=second * 100)})
        rate = rates.update(status, 50.0 + second)

    assert rate == {"f": 100.0}
    assert len(rates._seen["f"]) <= 6


def test_a_restarted_feed_has_no_negative_rate():
    rates = FrameRates()
    rates.update(examples.status(feeds={"f": examples.feed("upbit", frames=1_000)}), 1.0)

    assert rates.update(examples.status(feeds={"f": examples.feed("upbit", frames=3)}), 2.0) == {
        "f": 0.0
    }


def test_a_feed_that_went_is_forgotten():
    rates = FrameRates()
    rates.update(examples.status(feeds={"f": examples.feed("upbit")}), 1.0)
    rates.update(examples.status(feeds={}), 2.0)

    assert not rates._seen


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_without_a_terminal_one_plain_line_comes_every_few_seconds_on_stderr():
    stdout, stderr, now = io.StringIO(), io.StringIO(), [100.0]
    with LiveView(examples.context(), stdout=stdout, stderr=stderr, mono_s=lambda: now[0]) as view:
        for _ in range(21):
            view.show(examples.status(), 1.0)
            now[0] += 0.5

    lines = stderr.getvalue().splitlines()
    assert len(lines) == 3
    assert all("20/20 symbols live" in line and "\x1b" not in line for line in lines)
    assert not stdout.getvalue()
    assert not view.is_screen


def test_json_keeps_stdout_untouched_even_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    stdout, stderr = Terminal(), io.StringIO()
    with LiveView(examples.context(), as_json=True, stdout=stdout, stderr=stderr) as view:
        view.show(examples.status(), 1.0)

    assert not stdout.getvalue()
    assert stderr.getvalue()


def test_a_terminal_gets_its_screen_back_even_after_an_error(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    stdout = Terminal()
    view = LiveView(examples.context(), stdout=stdout, stderr=io.StringIO())

    def show_and_fail():
        with view:
            view.show(examples.status(), 1.0)
            raise KeyError

    with pytest.raises(KeyError):
        show_and_fail()

    assert view.is_screen
    drawn = stdout.getvalue()
    assert "\x1b[?1049h" in drawn  # the second screen was taken
    assert drawn.index("\x1b[?1049l") > drawn.index("\x1b[?1049h")  # and given back
    assert "\x1b[?25h" in drawn  # with its cursor
    assert "arb_ray" in drawn


def test_the_plain_line_tells_the_run():
    line = plain_line(examples.status(), Moment(61.0, RATES))

    assert line.startswith("01:01")
    for word in ("upbit 812 frames/s", "34,000 decisions", "6 closed", "+3.48 USDT", "risk active"):
        assert word in line


def progress_on(is_terminal):
    stream, now = io.StringIO(), [10.0]
    return Progress(stream, is_terminal=is_terminal, mono_s=lambda: now[0]), stream, now


def test_a_step_tells_how_long_it_took():
    progress, stream, now = progress_on(is_terminal=False)
    with progress.step("PostgreSQL"):
        now[0] += 0.74

    assert stream.getvalue() == "PostgreSQL up in 0.7 s\n"


def test_a_step_that_fails_says_so_and_passes_the_error_on():
    progress, stream, now = progress_on(is_terminal=False)

    def fail():
        with progress.step("Redis"):
            now[0] += 2
            raise KeyError

    with pytest.raises(KeyError):
        fail()

    assert stream.getvalue() == "Redis failed after 2.0 s\n"


def test_on_a_terminal_a_finished_step_overwrites_its_beginning():
    progress, stream, _ = progress_on(is_terminal=True)
    with progress.step("Ray"):
        pass

    assert stream.getvalue() == "Ray ...\r\x1b[2KRay up in 0.0 s\n"


def test_counts_without_a_terminal_come_once_a_second_and_the_last_always():
    progress, stream, now = progress_on(is_terminal=False)
    for done in range(1, 21):
        progress.count(done, 20, "symbols live")
        progress.count(done, 20, "symbols live")
        now[0] += 0.25

    lines = stream.getvalue().splitlines()
    assert lines == [f"{done} of 20 symbols live" for done in (1, 5, 9, 13, 17, 20)]


def test_on_a_terminal_counts_overwrite_each_other():
    progress, stream, _ = progress_on(is_terminal=True)
    for done in (1, 2, 2):
        progress.count(done, 2, "symbols live")

    assert stream.getvalue() == "1 of 2 symbols live\r\x1b[2K2 of 2 symbols live\n"
