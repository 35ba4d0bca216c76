"""Settings of the run itself: session, topology, stores, simulation, what can be seen."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from arb_ray.app.settings_fields import (
    Bytes,
    Count,
    CountOrNone,
    Ms,
    Name,
    Port,
    PortOrAny,
    Seconds,
    SecondsOrZero,
    Secret,
    Section,
    Text,
    Texts,
    impossible,
)


class SessionSettings(Section):
    """One run, from its start to its clean stop."""

    data_dir: Text = Field(
        description="Folder of the embedded servers' data, the spool and local logs."
    )
    duration_s: SecondsOrZero = Field(
        description="Time from the moment all symbols are live to the stop; 0 runs until stopped."
    )
    resume: bool = Field(
        description="Continue the open session with its positions; false begins a new one."
    )
    on_stop: Literal["exit", "keep"] = Field(
        description="What a clean stop does with open trades: `exit` closes them, `keep` leaves "
        "them for the next start."
    )
    ready_timeout_s: Seconds = Field(
        description="A start that has not every symbol live by then fails, or goes on with a "
        "warning when some are."
    )
    stop_timeout_s: Seconds = Field(
        description="A clean stop waits this long for open trades to close, then keeps them."
    )


class TopologySettings(Section):
    """How the work is cut into actors."""

    symbols_per_actor: Annotated[str, Field(pattern=r"^(auto|[1-9][0-9]{0,3})$")] = Field(
        description="`1` gives each symbol its own strategy actor, a number packs so many into "
        "one, `auto` packs by the processors of the machine."
    )
    hosts_auto_count: Count = Field(
        description="Strategy hosts that `auto` makes for each two processors of the machine."
    )
    tick_plane: Literal["auto", "shm", "ray"] = Field(
        description="How books reach strategies of the feed's own node: `shm` lays them in shared "
        "memory and refuses to trade without, `ray` sends packed Ray calls, `auto` takes shared "
        "memory where it can be had and Ray calls, with a warning, where not."
    )
    batch_interval_ms: Ms = Field(
        description="Least time between two batches of one feed to one host; newest wins meanwhile."
    )
    heartbeat_interval_ms: Ms = Field(
        description="A batch without books is sent after this, so that quiet books stay fresh."
    )
    reconcile_interval_ms: Ms = Field(
        description="How often the Supervisor compares what should run with what runs."
    )
    health_timeout_s: Annotated[float, Field(ge=3, le=3_600)] = Field(
        description="A process that answers nobody for so long is ended and started again: it is "
        "frozen, or its event loop hangs. One that was killed is started again at once. Below "
        "3 s a start after a kill would be taken for silence."
    )


class StoreSettings(Section):
    """What both servers have in common."""

    embedded: bool = Field(
        description="Run the server that comes as a wheel, with its data under "
        "`session.data_dir`; host, port, user and password are then of no account."
    )
    host: Text = Field(description="Host name or address of the server.")
    port: Port = Field(description="Its port.")
    password: Secret | None = Field(
        default=None,
        description="Its password. Never in YAML: a secret file or the environment.",
    )


class PostgresSettings(StoreSettings):
    """PostgreSQL: the journal, the ledger and the snapshots."""

    database: Name = Field(description="Name of the database.")
    user: Name = Field(description="User that owns the tables.")
    host_pool_max_count: Annotated[int, Field(ge=1, le=2)] = Field(
        description="Connections of each strategy host; at most two, because hosts are many."
    )
    service_pool_max_count: Annotated[int, Field(ge=1, le=50)] = Field(
        description="Connections of RiskGuard, Persistence and the Gateway, each."
    )
    statement_timeout_ms: Ms = Field(description="PostgreSQL ends a longer statement.")
    acquire_timeout_s: Seconds = Field(
        description="Connecting, or waiting for a free connection, ends after this; the store "
        "is then unavailable."
    )


class RedisSettings(StoreSettings):
    """Redis: fast, disposable state."""

    database_number: Annotated[int, Field(ge=0, le=15)] = Field(
        description="Number of the logical database, 0 to 15."
    )
    user: Name | None = Field(description="ACL user; `null` for the default user.")
    tls: bool = Field(
        description="Speak TLS and check the server's certificate against `host`. The embedded "
        "server has none."
    )
    tls_ca_file: Text | None = Field(
        description="Certificates that the server's must be signed by, as a PEM file on every "
        "node; `null` takes those that the machine trusts."
    )
    connect_timeout_s: Seconds = Field(description="An attempt to connect ends after this.")
    pool_max_count: Annotated[int, Field(ge=1, le=100)] = Field(
        description="Connections of each process that writes state."
    )
    operation_timeout_ms: Ms = Field(description="A command without an answer ends after this.")
    failures_to_fallback_count: Count = Field(
        description="Failures in a row after which PostgreSQL and memory take over."
    )
    ping_interval_s: Seconds = Field(
        description="How often it is pinged; a healthy answer ends the fallback."
    )
    state_ttl_s: Seconds = Field(description="Life of a session's state keys.")
    metrics_ttl_s: Seconds = Field(description="Life of a symbol's metric keys.")
    cache_ttl_s: Seconds = Field(description="Life of cache keys.")


class PersistenceSettings(Section):
    """Snapshots on their way to the stores; the bounds of batches, buffer and spool."""

    batch_max_rows: Count = Field(description="Rows of one write to PostgreSQL, at most.")
    batch_max_bytes: Bytes = Field(
        le=2_000_000, description="Bytes of one write to PostgreSQL, at most, about."
    )
    batch_age_s: Seconds = Field(description="What is buffered is written this often.")
    buffer_max_rows: Count = Field(
        description="At the bound the oldest rows go to the spool on disk; from half of it on "
        "the producers conflate their statistics."
    )
    buffer_max_bytes: Bytes = Field(description="Likewise, by what the rows weigh.")
    spool_max_bytes: Bytes = Field(
        description="Size of each actor's spool; at the bound snapshots are dropped and "
        "counted, and a host's exits wait."
    )
    disk_free_min_bytes: Bytes = Field(
        description="With less room on the disk of the spool nothing is entered any more."
    )
    session_interval_s: Seconds = Field(
        description="Between two snapshots of the session and of RiskGuard."
    )
    restore_max_age_s: Seconds = Field(
        description="A start takes counts from no snapshot that is older; trades and positions "
        "are the ledger's in any case."
    )
    metrics_interval_s: Seconds = Field(
        description="Between two snapshots of the statistics and of open positions."
    )
    state_interval_s: Seconds = Field(description="Between two writes of the state to Redis.")

    @model_validator(mode="after")
    def _a_batch_fits_the_buffer(self) -> Self:
        if self.buffer_max_rows < self.batch_max_rows:
            raise impossible(
                "buffer_max_rows",
                f"{self.buffer_max_rows} rows cannot hold one batch",
                f"Write at least {self.batch_max_rows}, the value of batch_max_rows",
            )
        if self.buffer_max_bytes < self.batch_max_bytes:
            raise impossible(
                "buffer_max_bytes",
                f"{self.buffer_max_bytes} bytes cannot hold one batch",
                f"Write at least {self.batch_max_bytes}, the value of batch_max_bytes",
            )
        return self


class SimSettings(Section):
    """The simulated exchanges, used by source `sim` only."""

    preset: Literal["lively", "calibrated", "stress"] = Field(
        description="`calibrated` is like the real markets, where profit is rare; `lively` "
        "exaggerates so that trades can be watched; `stress` adds the days that broke records."
    )
    market_seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = Field(
        description="The same seed and origin give the same prices."
    )
    rate_ratio: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = Field(
        description="Multiplies the message rates of the preset."
    )


class RecordingSettings(Section):
    """What is captured from the venues, and how captured frames are played."""

    record_dir: Text | None = Field(
        description="Write every received frame there; `null` records nothing."
    )
    file_max_bytes: Bytes = Field(description="A recording begins a new file at this size.")
    files: Texts = Field(
        description="Recordings that source `recorded` or `replay` plays. In an environment "
        "variable: separated by commas."
    )
    speed_ratio: Annotated[float, Field(gt=0, le=1_000, allow_inf_nan=False)] = Field(
        description="1 plays at the speed of the recording, 10 ten times as fast."
    )


TOKEN_CHARS_MIN = 16


def _fit_for_a_header(token: SecretStr) -> SecretStr:
    text = token.get_secret_value()
    if len(text) < TOKEN_CHARS_MIN or not all("!" <= character <= "~" for character in text):
        raise impossible(
            "",
            f"has fewer than {TOKEN_CHARS_MIN} characters, or blanks or letters beyond ASCII",
            "Make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'",
        )
    return token


class GatewaySettings(Section):
    """HTTP for people and probes."""

    enabled: bool = Field(description="Whether to serve it.")
    host: Text = Field(
        description="Address to listen on. What it tells it tells everyone, and it speaks plain "
        "HTTP: keep it on the loopback, or on a network of your own; beyond the loopback it needs "
        "`gateway.token`."
    )
    http_port: PortOrAny = Field(description="Port to listen on; 0 takes a free one.")
    request_timeout_s: Seconds = Field(description="A request that takes longer is ended.")
    token: Annotated[Secret, AfterValidator(_fit_for_a_header)] | None = Field(
        default=None,
        description="What halt, resume and flatten must show: 16 or more visible ASCII characters. "
        "Never in YAML: a secret file or the environment. Without one those three are refused; a "
        "run on this machine makes one for itself.",
    )


class TelemetrySettings(Section):
    """Logs."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        description="Events below this level are not written."
    )
    log_format: Literal["json", "console"] = Field(
        description="Form of submit.log: `json` for machines, one line an event; `console` for a "
        "person. The actors' logs are always JSON."
    )


class RaySettings(Section):
    """Ray itself."""

    address: Text | None = Field(
        description="Address of a running cluster; `null` starts one on this machine (dev only)."
    )
    namespace: Name = Field(description="Namespace of the actors' names.")
    auth_mode: Literal["disabled", "token"] = Field(
        description="Whether the cluster wants a token. The token itself is Ray's own: "
        "RAY_AUTH_TOKEN_PATH."
    )
    local_cpus_count: CountOrNone = Field(
        description="Processors that a local Ray may plan with; 0 takes those of the machine."
    )
    object_store_bytes: Bytes = Field(description="Object store of a local Ray.")
    dashboard: bool = Field(description="Whether a local Ray starts its dashboard.")
    worker_niceness: Annotated[int, Field(ge=-20, le=19)] = Field(
        description="Niceness of the actors' processes. Ray's own default of 15 costs latency."
    )
