import msgspec

from arb_ray.domain.book import ConnectionAlive
from arb_ray.engine.market_view import FEED_GONE_NS, MAX_CONNECTIONS_PER_FEED, MarketView
from tests.signal_market import (
    F_BOOK,
    F_ID,
    MS,
    N_BOOK,
    N_ID,
    NODE,
    T0,
    U_CHEAP,
    U_FAIR,
    U_ID,
    Market,
    S,
    make_batch,
    make_update,
    spot_pair,
)


def test_newer_book_replaces_and_older_is_counted():
    market = Market(spot_pair())
    first, second = make_update(U_ID, 1, U_FAIR), make_update(U_ID, 2, U_CHEAP)
    assert market.apply(make_batch("upbit", [second])) == [U_ID]
    assert not market.apply(make_batch("upbit", [first, second]))
    assert market.view.levels(U_ID) == U_CHEAP
    assert market.view.counts.old == 2


def test_book_that_nobody_read_counts_as_conflated():
    market = Market(spot_pair())
    market.put(u=U_FAIR)
    market.put(u=U_CHEAP)
    assert (market.view.counts.accepted, market.view.counts.conflated) == (2, 1)


def test_unknown_schema_and_unwatched_instruments_change_nothing():
    market = Market(spot_pair())
    assert not market.apply(make_batch("upbit", [make_update(U_ID, 1, U_FAIR)], schema=99))
    assert not market.apply(make_batch("upbit", [make_update("upbit:XRP-KRW", 1, U_FAIR)]))
    assert market.view.counts.unknown_schema == market.view.counts.unwatched == 1
    assert market.view.levels(U_ID) is None


def test_quiet_book_stays_fresh_while_its_connection_lives():
    market = Market(spot_pair())
    market.put(u=U_FAIR)
    market.tick(143)
    market.alive("upbit")
    live = market.view.books[U_ID]
    assert live.age_ns(market.mono_ns) == 0
    assert live.unchanged_ns(market.mono_ns) == 143 * S


def test_a_book_proves_its_connection_alive_and_an_older_frame_takes_nothing_back():
    market = Market(spot_pair())
    market.put(u=U_FAIR)
    market.tick(2)
    for seq, age_ns in ((100, 30 * MS), (101, 900 * MS)):
        update = make_update(U_ID, seq, U_FAIR, age_ns=age_ns)
        market.apply(make_batch("upbit", [update], market.mono_ns, alive=()))
        assert market.view.books[U_ID].age_ns(market.mono_ns) == 30 * MS


def test_same_levels_again_are_no_change():
    market = Market(spot_pair())
    market.put(u=U_FAIR)
    market.tick(5)
    market.put(u=U_FAIR)
    assert market.view.books[U_ID].unchanged_ns(market.mono_ns) == 5 * S


def test_age_on_the_same_node_is_exact_and_elsewhere_takes_the_allowance():
    alive = (ConnectionAlive(0, 7 * MS, True),)
    update = make_update(U_ID, 1, U_FAIR, age_ns=7 * MS)
    here = Market(spot_pair(), transit_allowance_ns=50 * MS)
    here.apply(make_batch("upbit", [update], here.mono_ns - 2 * MS, alive=alive))
    assert here.view.books[U_ID].age_ns(here.mono_ns) == 9 * MS
    far = Market(spot_pair(), transit_allowance_ns=50 * MS)
    far.apply(make_batch("upbit", [update], 123, alive=alive, node="other"))
    assert far.view.books[U_ID].age_ns(far.mono_ns) == 57 * MS
    far.tick(0.001)
    assert far.view.books[U_ID].age_ns(far.mono_ns) == 58 * MS


def test_cut_connection_makes_its_books_stale_until_they_come_again():
    market = Market(spot_pair())
    market.put(u=U_FAIR)
    market.alive("upbit", is_up=False)
    assert not market.view.books[U_ID].connection.is_up
    market.alive("upbit")  # the same number, a new life: what was there is from before the cut
    assert not market.view.books[U_ID].connection.is_up
    market.put(u=U_FAIR)
    assert market.view.books[U_ID].connection.is_up


def test_late_book_of_a_cut_connection_proves_no_life():
    market = Market(spot_pair())
    market.alive("upbit")
    market.alive("upbit", is_up=False)
    market.apply(make_batch("upbit", [make_update(U_ID, 1, U_FAIR)], alive=()))
    assert not market.view.books[U_ID].connection.is_up


def test_feed_that_restarts_leaves_its_old_books_stale_and_its_old_batches_out():
    market = Market(spot_pair())
    market.put(u=U_FAIR)
    market.apply(make_batch("upbit", [], market.mono_ns, epoch=2))
    assert not market.view.books[U_ID].connection.is_up
    assert not market.apply(make_batch("upbit", [make_update(U_ID, 99, U_CHEAP)]))
    assert market.view.counts.old_epoch == 1
    update = make_update(U_ID, 1, U_CHEAP, epoch=2)
    assert market.apply(make_batch("upbit", [update], market.mono_ns, epoch=2)) == [U_ID]


def test_instrument_that_moves_to_another_feed_is_taken_over_once_the_first_is_cut():
    market = Market(spot_pair())
    market.apply(make_batch("upbit-1", [make_update(U_ID, 50, U_FAIR, epoch=9)], epoch=9))
    other = make_batch("upbit-2", [make_update(U_ID, 1, U_CHEAP, epoch=3)], epoch=3)
    assert not market.apply(other)
    market.apply(make_batch("upbit-1", [], epoch=9, alive=[ConnectionAlive(0, 0, False)]))
    assert market.apply(other) == [U_ID]


def test_event_delay_uses_the_estimated_clock_offset():
    market = Market(spot_pair())
    # The venue's clock is 1,273 ms ahead of ours; the frame took 4 ms.
    update = make_update(N_ID, 1, N_BOOK, recv_ns=T0, exchange_ns=T0 + 1_269 * MS)
    market.apply(make_batch("binance", [update], offset_ms=1_273.0))
    assert market.view.books[N_ID].event_delay_ns == 4 * MS


def test_fx_concerns_every_symbol_and_unwatching_forgets():
    market = Market(spot_pair())
    market.put(u=U_FAIR, f=F_BOOK)
    assert market.view.symbols_of([F_ID, U_ID]) == ["ETH"]
    market.view.unwatch("ETH")
    assert market.view.symbols_of([F_ID]) == []
    assert not market.view.books


def test_connections_of_a_feed_are_bounded():
    market = Market(spot_pair())
    lines = [ConnectionAlive(i, 0, True) for i in range(MAX_CONNECTIONS_PER_FEED + 9)]
    market.apply(make_batch("upbit", [], alive=lines))
    market.apply(make_batch("upbit", [], alive=[ConnectionAlive(i, 0, False) for i in range(999)]))
    feed = market.view.feeds["upbit"]
    assert len(feed.connections) <= MAX_CONNECTIONS_PER_FEED
    assert len(feed.cut) <= MAX_CONNECTIONS_PER_FEED


def test_older_funding_is_left_out():
    market = Market(spot_pair())
    market.fund(0.0001, 60)
    newest = market.view.funding[N_ID]
    market.now_ns -= S
    market.fund(0.0009, 60)
    assert market.view.funding[N_ID] is newest


def test_the_successor_of_an_ended_feed_is_believed_though_its_node_s_clock_is_behind():
    view = MarketView([spot_pair()], transit_allowance_ns=0)

    def put(name, epoch, seq, at_ns):
        update = msgspec.structs.replace(make_update(U_ID, seq, U_FAIR, at_ns), feed_epoch=epoch)
        batch = make_batch(name, [update], at_ns)
        return view.apply(msgspec.structs.replace(batch, feed_epoch=epoch), at_ns, NODE)

    assert put("upbit@1", 2_000, 1, T0)
    # While the first one lives its newer epoch wins; an ended one tells nobody, and is silent.
    assert not put("upbit@2", 1_000, 1, T0 + S)
    assert put("upbit@2", 1_000, 2, T0 + FEED_GONE_NS + 1)


def test_what_nobody_looked_at_is_counted_by_instrument_wherever_it_was_lost():
    market = Market(spot_pair())
    view = market.view

    def take(seq, *, is_read):
        market.apply(make_batch("upbit", [make_update(U_ID, seq, U_FAIR)]))
        view.books[U_ID].is_read = is_read

    take(1, is_read=True)
    take(2, is_read=True)
    assert view.overwritten == {}
    take(3, is_read=False)
    take(4, is_read=True)  # 3 was overwritten here
    assert view.overwritten == {U_ID: 1}
    take(8, is_read=True)  # 5 to 7 on the way
    assert view.overwritten == {U_ID: 4}
    view.unwatch(spot_pair().symbol)
    assert view.overwritten == {}
