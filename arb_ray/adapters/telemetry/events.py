"""
Every name that a log line can have in ``event``, with its meaning.

One name per fact. A test reads the source and refuses a name that is not here, so that
docs/EVENTS.md, which is made from this list, is whole; actors, which import no adapter,
write the names as literals.
"""

from __future__ import annotations

from types import MappingProxyType

_MEANINGS: dict[str, str] = {}
_OF_TRADES: set[str] = set()


def _event(name: str, meaning: str, *, is_of_trade: bool = False) -> str:
    assert name not in _MEANINGS, f"{name} is declared twice"
    _MEANINGS[name] = meaning
    if is_of_trade:
        _OF_TRADES.add(name)
    return name


def _trade_event(name: str, meaning: str) -> str:
    return _event(name, meaning, is_of_trade=True)


# The run
RUN_STARTING = _event("run_starting", "A session is open: environment, source, preset, symbols.")
RUN_LIVE = _event(
    "run_live", "Every symbol is live, or `errors` names the others; `duration` counts from here."
)
RUN_STOPPING = _event("run_stopping", "A clean stop begins, by time, signal or operator.")
RUN_STOPPED = _event("run_stopped", "The run has ended; nothing of it is left running.")
RUN_FAILED = _event("run_failed", "The run has ended before its clean stop; `cause` tells why.")
DEPLOYMENT_WRITTEN = _event("deployment_written", "submit wrote a new wanted state.")
WANTED_ADOPTED = _event("wanted_adopted", "The Supervisor carries out a new wanted state.")
WANTED_STOPPED = _event("wanted_stopped", "A stopped state was carried out; nothing runs.")
WANTED_WAITS = _event("wanted_waits", "The wanted state cannot be read; what ran goes on.")
CONFIG_LOADED = _event("config_loaded", "The settings are read; `config_hash` names them.")
SERVER_STARTED = _event("server_started", "An embedded server accepts connections.")
SERVER_STOPPED = _event("server_stopped", "An embedded server has ended.")
MIGRATIONS_APPLIED = _event(
    "migrations_applied", "The database has this version's schema; `applied` was new."
)

# Supervisor and actors
OVERLOADED = _event(
    "overloaded",
    "A feed or host has been given more than it can look at, or its loop was late, for 5 s; "
    "`cause` tells which. Newest wins meanwhile.",
)
OVERLOAD_OVER = _event("overload_over", "It has kept up again for 5 s.")
ACTOR_STARTED = _event("actor_started", "The Supervisor starts an actor that should run.")
ACTOR_STOPPED = _event("actor_stopped", "The Supervisor stops an actor that should not run.")
ACTOR_RESTARTED = _event("actor_restarted", "An actor's process ended and Ray started it again.")
ACTOR_REPLACED = _event(
    "actor_replaced", "An actor did not answer for `silent_s`, was ended and is started again."
)
SUPERVISOR_MISSING = _event("supervisor_missing", "The Supervisor is silent and does not exist.")
DRAIN_FAILED = _event("drain_failed", "An actor could not be drained; it is stopped all the same.")
DRAIN_REPEATED = _event("drain_repeated", "An actor that is drained did not answer; asked again.")
FLUSH_FAILED = _event("flush_failed", "An actor could not write out what it held before its stop.")
LOOP_ENDED = _event(
    "loop_ended", "A loop of an actor ended by a bug; its process leaves and Ray starts it again."
)
ROUTE_WAITS = _event("route_waits", "A feed cannot be told its hosts yet; it is tried again.")
SOURCE_SERVING = _event("source_serving", "Simulated or recorded exchanges listen.")
GATEWAY_SERVING = _event("gateway_serving", "The Gateway listens.")
ACTION_REFUSED = _event("action_refused", "Someone asked the Gateway to act without its token.")
ACTION_FAILED = _event(
    "action_failed", "RiskGuard did not carry out what an operator asked the Gateway for."
)

# Feeds
WS_CONNECTED = _event("ws_connected", "A WebSocket connection is open and subscribed.")
WS_DISCONNECTED = _event("ws_disconnected", "A connection was lost or cut; it is made anew.")
WS_ROTATES = _event("ws_rotates", "A connection is being replaced by an overlapping one.")
WS_RESUBSCRIBES = _event("ws_resubscribes", "A subscription is sent again.")
WS_UNREACHABLE = _event("ws_unreachable", "Many attempts in a row failed; they go on for ever.")
SNAPSHOT_FAILED = _event("snapshot_failed", "A book's REST snapshot did not come; asked again.")
VENUE_COMPLAINT = _event(
    "venue_complaint", "A frame was malformed or unknown, or a book broke; with an excerpt."
)

PLANE_UNAVAILABLE = _event(
    "plane_unavailable",
    "A feed or a host has no shared memory for ticks; Ray calls carry them, or with "
    "`topology.tick_plane: shm` nothing is traded.",
)
PLANE_SCHEMA_UNKNOWN = _event(
    "plane_schema_unknown", "A board of another version of arb_ray lies there; it is not read."
)

RULES_FALLBACK = _event(
    "rules_fallback", "A venue's trading rules could not be read; its dated table stands in."
)
MARKET_WARNED = _event(
    "market_warned", "A venue warns of a market that we watch; `warnings` are its own words."
)
MARKET_NOT_TRADING = _event(
    "market_not_trading", "A market is halted, delisted or not listed; it is only watched."
)
REST_LIMIT_UNKNOWN = _event(
    "rest_limit_unknown", "A venue did not tell its request limit; the documented one holds."
)

# Trading
NO_INVENTORY = _event("no_inventory", "A symbol has no coins to begin with, so sales are refused.")
OPPORTUNITY = _trade_event("opportunity", "A net edge above the minimum, with every cost term.")
ENTRY_REFUSED = _trade_event(
    "entry_refused", "An opportunity came to nothing after its signal; `reason` tells why."
)
TRADE_OPENED = _trade_event("trade_opened", "Both legs of an entry have their fills.")
TRADE_CLOSED = _trade_event("trade_closed", "A trade ended flat, with its PnL and the parts of it.")
TRADE_MOVED = _trade_event("trade_moved", "A trade went from one phase to another.")
TRADE_RESUMED = _event("trade_resumed", "A host took up an open trade from the journal.")
ORDER_REPORTED = _trade_event(
    "order_reported", "The venue's word on an order; a warning when nothing was filled."
)
TRADE_NOTE = _trade_event("trade_note", "The trade machine remarks something; `kind` names it.")
RISK_UNREACHABLE = _event("risk_unreachable", "A host gets no answer from RiskGuard; no entries.")
RISK_UNANSWERED = _trade_event(
    "risk_unanswered", "A reservation had no answer in time; it is voided."
)
JOURNAL_WAITS = _trade_event(
    "journal_waits", "An event could not be journalled; repeated, or decided anew at new prices."
)
LEDGER_STATE = _event(
    "ledger_state", "A host's writes go to its spool, or to PostgreSQL again; see `is_up`."
)
SPOOL_ADOPTED = _event("spool_adopted", "A host takes up the spool of a process that is gone.")
SPOOL_REPLAYED = _event("spool_replayed", "What was spooled is in the books.")
SPOOL_LEFT = _event("spool_left", "A host ends with records in its spool; the next one replays it.")
SPOOL_REFUSED = _event(
    "spool_refused", "Neither PostgreSQL nor the spool took a write of a live trade; it waits."
)
RECORD_REFUSED = _event(
    "record_refused", "The books refused a spooled write; it is kept for reconciliation."
)
ORDER_TOO_OLD = _trade_event(
    "order_too_old", "An order waited longer than its decision is good for; it is not sent."
)
FUNDING_WAITS = _trade_event(
    "funding_waits", "A closed trade waits for a funding rate of the venue; then it is settled."
)
QUERY_WAITS = _trade_event("query_waits", "An order's fate could not be asked yet; tried again.")
WRITE_WAITS = _trade_event(
    "write_waits", "A write to the ledger did not succeed; repeated under its id."
)
OUTBOX_LOST = _event("outbox_lost", "Rows for Persistence were lost on the way; counted.")
FILL_WAITS_FOR_STORE = _trade_event(
    "fill_waits_for_store", "A paper fill waits until it can be stored durably."
)

# Risk
RISK_RECOVERED = _event("risk_recovered", "RiskGuard rebuilt itself from the ledger.")
RISK_START_WAITS = _event("risk_start_waits", "RiskGuard waits for PostgreSQL to start from.")
RISK_LIMITS = _event("risk_limits", "RiskGuard put the limits of a newly wanted state in force.")
RISK_STATE = _event("risk_state", "RiskGuard changed between active, reduce only and halted.")
RISK_COMMAND = _event("risk_command", "An operator told RiskGuard to halt, resume or flatten.")
CALL_FAILED = _event("call_failed", "A call to RiskGuard that nobody waits for any more failed.")
LEASE_NOT_RENEWED = _event(
    "lease_not_renewed", "The guard could not prove its lease; each yes is fenced by itself."
)

# Stores
POSTGRES_STATE = _event("postgres_state", "PostgreSQL began or ceased to take snapshots.")
REDIS_STATE = _event(
    "redis_state",
    "Memory stands in for Redis, with the `cause`, or no longer does, after `away_s`; see `is_up`.",
)
SESSION_RESTORED = _event(
    "session_restored", "A start took up what the session's runs before it had counted and left."
)
DISK_FULL = _event("disk_full", "The spool's disk could not take what PostgreSQL does not.")
DISK_HAS_ROOM = _event("disk_has_room", "It could again; entries wait for an operator's resume.")
RESTRICTION_WAITS = _event(
    "restriction_waits", "RiskGuard did not hear that entries must stop; it is told again."
)
SNAPSHOTS_CORRUPT = _event("snapshots_corrupt", "Snapshots failed their check when read back.")
SNAPSHOTS_DROPPED = _event("snapshots_dropped", "Snapshot rows were lost at a bound.")

SNAPSHOT_WAITS = _event("snapshot_waits", "Persistence did not take the session's state; again.")
STATUS_MISSING = _event("status_missing", "The supervisor did not answer; it is asked again.")

RULES_UNKNOWN = _event("rules_unknown", "A market's rules are not known; it is only watched.")

# Any library
LIBRARY = _event("library", "A line of a library's own logger; `message` is its text.")

EVENTS = MappingProxyType(_MEANINGS)
"""Every event's name and meaning, in the order of this module."""

TRADE_EVENTS = frozenset(_OF_TRADES)
"""Events of an opportunity, a trade or an order; their lines carry ``logs.TRADE_KEYS``."""
