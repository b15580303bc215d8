"""Settings: what is fixed when the gateway starts, as opposed to policy, which may change under way.

Each setting has a flag, a variable in the environment and a default, in that order of precedence. They stand in one
table, `SETTINGS`: the command line, the checks, the help and the README are made from it or tested against it.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_args

from gateway import readers
from gateway.errors import SettingsError

PREFIX = "FIRSTDRAFT_"
POLICY_VARIABLES = frozenset({"FIRSTDRAFT_BACKEND_URL", "FIRSTDRAFT_BACKEND_MODEL", "FIRSTDRAFT_BACKEND_KEY"})
"""Variables with our prefix that the shipped policies read; no settings."""

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "json", "console"]
MetricsOn = Literal["gateway", "admin"]

_NEAR = 0.8
"""From this likeness on (difflib's ratio), an unknown variable is taken for a misspelt setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings, checked. Made by `load_settings`; tests may make one by hand."""

    policies: Path = Path("policies")
    """The policy folder; it exists."""
    host: str = "127.0.0.1"
    port: int = 8080
    """0..65535; 0 lets the system choose."""
    state: Path = Path("state")
    """Where the embedded store, the edge's sockets and its model formats live; made at the start."""
    workers: int = 1
    """Gateway processes, 1..64."""
    redis_url: str | None = field(default=None, repr=False)
    """A server's URL, or that of Sentinels or a Cluster; may hold a password. None: the embedded store."""
    store_timeout_s: float = 0.25
    """The most that the store takes for one answer, 0.01..60."""
    edge: bool = True
    """False: no llama.cpp process is started, whatever the policy says."""
    edge_threads: int = 0
    """Threads that decode, 1..256; 0: measured at the start."""
    edge_context: int = 8_192
    """Tokens of context that all requests at the edge share, 512..1,048,576."""
    edge_memory_mb: int = 0
    """Megabytes that all draft models may take together; 0: what the machine has."""
    body_limit_bytes: int = 33_554_432
    """Largest request body, 1 KiB..1 GiB."""
    cache_keys: str | None = field(default=None, repr=False)
    """What cached answers are encrypted with: `file:PATH`, or keys in base64. None: they are not."""
    record_decisions: float = 0.01
    """The share of decisions whose facts are recorded in the state folder, 0..1."""
    lease_s: float = 60.0
    """How long what a request reserved outlives its gateway, 1..3,600."""
    batch_lines: int = 16
    """Lines of batches that a worker answers at once, 0..1,024; 0: it works off none."""
    files_bytes: int = 268_435_456
    """What a tenant's files may take together in the store, 1 KiB..1 TiB."""
    drain_s: float = 30.0
    """How long running requests may go on after SIGTERM, 0..3,600."""
    tls_cert: Path | None = None
    """The certificate and the chain to its root, in PEM. With `tls_key`: HTTPS on all ports."""
    tls_key: Path | None = None
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the gateway, as browsers write them; or `*` alone."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks whose peers are believed in `forwarded` and `x-forwarded-…`, in CIDR."""
    admin_port: int | None = None
    """0..65535; None: the admin surface is on `port`, if there is an `admin_key`, else nowhere."""
    admin_host: str = "127.0.0.1"
    admin_key: str | None = field(default=None, repr=False)
    """A SHA-256 in hex, or `file:PATH`. None: only this machine may use the admin surface."""
    metrics_on: MetricsOn = "gateway"
    log_level: LogLevel = "info"
    log_format: LogFormat = "auto"
    """`auto`: for people where stderr is a terminal, else one JSON object a line."""

    @property
    def loopback(self) -> bool:
        """Only this machine can connect: what a policy without keys asks for."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Who listens there can be reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One row of the table. `read` turns text into the value, or raises ValueError with what it has to be."""

    name: str
    metavar: str
    default: str
    """As the help and the README show it."""
    help: str
    read: Callable[[str], object]
    secret: bool = False
    """The value may hold a password: it is not repeated in messages."""

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()

    @property
    def is_switch(self) -> bool:
        """Given as `--name` / `--no-name`, without a value."""
        return self.metavar == ""


def load_settings(flags: Mapping[str, str | bool | None], environ: Mapping[str, str], *, home: Path | None) -> Settings:
    """The settings from the command line's `flags` (None: not given), else `environ`, else the defaults.

    `home` is the user's home folder, None where there is none. Raises SettingsError with one line for each mistake.
    """
    mistakes = _misspelt(environ)
    values: dict[str, object] = {}
    for setting in SETTINGS:
        try:
            value = _value_of(setting, flags.get(setting.name), environ)
        except ValueError as error:
            mistakes.append(str(error))
        else:
            if value is not None:
                values[setting.name] = value
    if "state" not in values:
        _default_state(values, environ, home, mistakes)
    mistakes += _unusable(values)
    if mistakes:
        raise SettingsError("\n".join(mistakes))
    return Settings(**cast("dict[str, Any]", values))


def _value_of(setting: Setting, flag: str | bool | None, environ: Mapping[str, str]) -> object | None:  # noqa: FBT001 a switch's value is a bool
    """The value that was given, None if none was. Raises ValueError with the whole line to show."""
    if isinstance(flag, bool):
        return flag
    text, source = (flag, setting.flag) if flag is not None else (environ.get(setting.variable), setting.variable)
    if text is None or (flag is None and (not text.strip() or _is_kubernetes_link(text))):
        return None
    try:
        return setting.read(text.strip())
    except ValueError as error:
        other = setting.variable if source == setting.flag else setting.flag
        shown = "" if setting.secret else f" {text!r}"
        raise ValueError(f"{source}{shown} (or {other}): {error}") from None


def _is_kubernetes_link(text: str) -> bool:
    """Kubernetes sets FIRSTDRAFT_PORT=tcp://10.0.0.7:8080 in every pod beside a service named `firstdraft`."""
    return text.startswith(("tcp://", "udp://"))


def _misspelt(environ: Mapping[str, str]) -> list[str]:
    """Variables that look like a setting and are none. Others may be the policy's (`${FIRSTDRAFT_…}`)."""
    known = {setting.variable.removeprefix(PREFIX): setting for setting in SETTINGS}
    mistakes = []
    for variable in sorted(environ):
        name = variable.removeprefix(PREFIX)
        if not variable.startswith(PREFIX) or name in known or variable in POLICY_VARIABLES:
            continue
        for near in difflib.get_close_matches(name, known, n=1, cutoff=_NEAR):
            setting = known[near]
            mistakes.append(f"{variable}: no such setting; did you mean {setting.variable} (or {setting.flag})?")
    return mistakes


def default_state(environ: Mapping[str, str], home: Path | None) -> Path | None:
    """The state folder where none is given; None: this user has no home."""
    base = environ.get("XDG_STATE_HOME", "")
    if base.startswith("/"):  # the XDG specification ignores relative paths
        return Path(base) / "firstdraft"
    return None if home is None else home / ".local" / "state" / "firstdraft"


def _default_state(
    values: dict[str, object], environ: Mapping[str, str], home: Path | None, mistakes: list[str]
) -> None:
    found = default_state(environ, home)
    if found is not None:
        values["state"] = found
    else:
        mistakes.append("--state (or FIRSTDRAFT_STATE): has to be given, for this user has no home folder")


def _unusable(values: Mapping[str, object]) -> list[str]:
    """What is well written and still cannot work on this machine."""
    mistakes = []
    policies = values.get("policies", Path("policies"))
    if isinstance(policies, Path) and not policies.is_dir():
        what = "is not a folder" if policies.exists() else "does not exist"
        hint = f"`firstdraft init {policies}` writes a first one"
        mistakes.append(f"--policies '{policies}' (or FIRSTDRAFT_POLICIES): {what}; {hint}")
    state = values.get("state")
    if isinstance(state, Path) and state.exists() and not state.is_dir():
        mistakes.append(f"--state '{state}' (or FIRSTDRAFT_STATE): is not a folder")
    if ("tls_cert" in values) != ("tls_key" in values):
        here, there = ("tls-cert", "tls-key") if "tls_cert" in values else ("tls-key", "tls-cert")
        mistakes.append(f"--{here} needs --{there} ({PREFIX}{there.upper().replace('-', '_')}) beside it")
    if values.get("metrics_on") == "admin" and not {"admin_port", "admin_key"} & values.keys():
        mistakes.append("--metrics-on admin (or FIRSTDRAFT_METRICS_ON): needs --admin-port, or --admin-key")
    return mistakes


SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="policies",
        metavar="DIR",
        default="policies",
        help="Folder with the policy's YAML files.",
        read=readers.path,
    ),
    Setting(
        name="host",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="Address to listen on. A policy that serves requests without a key starts only on loopback.",
        read=readers.host,
    ),
    Setting(
        name="port",
        metavar="PORT",
        default="8080",
        help="Port to listen on; 0 takes a free one.",
        read=readers.whole(0, 65_535),
    ),
    Setting(
        name="state",
        metavar="DIR",
        default="~/.local/state/firstdraft",
        help="Folder for the embedded store and the edge's model formats ($XDG_STATE_HOME is obeyed).",
        read=readers.path,
    ),
    Setting(name="workers", metavar="N", default="1", help="Gateway processes on one port.", read=readers.whole(1, 64)),
    Setting(
        name="redis_url",
        metavar="URL",
        default="the embedded store",
        help="Redis or Valkey to use, shared by all replicas. With a password, set the variable, not the flag.",
        read=readers.redis_url,
        secret=True,
    ),
    Setting(
        name="store_timeout_s",
        metavar="SECONDS",
        default="0.25",
        help="The most that one answer of the store may take; later, it counts as lost until it answers again.",
        read=readers.seconds(0.01, 60),
    ),
    Setting(
        name="edge",
        metavar="",
        default="on",
        help="Run the draft model beside the gateway; without it no drafts are made.",
        read=readers.switch,
    ),
    Setting(
        name="edge_threads",
        metavar="N",
        default="auto",
        help="Threads of the draft model; auto: measured at the start, and a core is left to the gateway.",
        read=readers.or_auto(1, 256),
    ),
    Setting(
        name="edge_context",
        metavar="TOKENS",
        default="8192",
        help="Context of the draft model, shared by all requests that it serves at once.",
        read=readers.whole(512, 1_048_576),
    ),
    Setting(
        name="edge_memory_mb",
        metavar="MB",
        default="auto",
        help="Memory for all draft models together; one that does not fit is refused; auto: what the machine has.",
        read=readers.or_auto(1, 16_777_216),
    ),
    Setting(
        name="body_limit_bytes",
        metavar="BYTES",
        default="33554432",
        help="Largest request body; a larger one is refused with 413.",
        read=readers.whole(1_024, 1_073_741_824),
    ),
    Setting(
        name="cache_keys",
        metavar="KEYS",
        default="not encrypted",
        help="file:PATH, or base64 keys of 32 bytes: the first encrypts cached answers, all decrypt. Use the variable.",
        read=readers.cache_keys,
        secret=True,
    ),
    Setting(
        name="record_decisions",
        metavar="SHARE",
        default="0.01",
        help="Share of decisions, 0 to 1, whose facts are kept in the state folder for `policy diff`; never a prompt.",
        read=readers.share,
    ),
    Setting(
        name="lease_s",
        metavar="SECONDS",
        default="60",
        help="After this time, what a killed gateway had reserved is booked, and its jobs are taken over by others.",
        read=readers.seconds(1, 3_600),
    ),
    Setting(
        name="batch_lines",
        metavar="N",
        default="16",
        help="Lines of batches that each worker answers at once; 0: none, other gateways on the same store do it.",
        read=readers.whole(0, 1_024),
    ),
    Setting(
        name="files_bytes",
        metavar="BYTES",
        default="268435456",
        help="What each tenant's files, uploads and results of batches, may take in the store together.",
        read=readers.whole(1_024, 1_099_511_627_776),
    ),
    Setting(
        name="drain_s",
        metavar="SECONDS",
        default="30",
        help="How long running requests may go on after SIGTERM.",
        read=readers.seconds(0, 3_600),
    ),
    Setting(
        name="tls_cert",
        metavar="FILE",
        default="no TLS",
        help="Certificate in PEM, with its chain; HTTPS on all ports. A changed file is taken up while serving.",
        read=readers.path,
    ),
    Setting(name="tls_key", metavar="FILE", default="no TLS", help="The certificate's key in PEM.", read=readers.path),
    Setting(
        name="cors_origins",
        metavar="ORIGINS",
        default="none",
        help="Origins whose web pages may call the gateway, separated by commas; * is any. Without cookies.",
        read=readers.origins,
    ),
    Setting(
        name="trusted_proxies",
        metavar="NETWORKS",
        default="none",
        help="Networks of proxies that are believed in `forwarded` or `x-forwarded-…`, separated by commas.",
        read=readers.networks,
    ),
    Setting(
        name="admin_port",
        metavar="PORT",
        default="off",
        help="Port of the admin API and the dashboard; without it they are under /admin of --port if there is a key.",
        read=readers.whole(0, 65_535),
    ),
    Setting(
        name="admin_host",
        metavar="ADDRESS",
        default="127.0.0.1",
        help="Address for --admin-port. One that other machines can reach needs an --admin-key.",
        read=readers.host,
    ),
    Setting(
        name="admin_key",
        metavar="KEY",
        default="this machine only",
        help="file:PATH of the admin key, or the SHA-256 of it; `firstdraft keys admin` makes one.",
        read=readers.key_hash,
        secret=True,
    ),
    Setting(
        name="metrics_on",
        metavar="SURFACE",
        default="gateway",
        help="Where /metrics is: on the gateway's own port, or on the admin surface, with its key.",
        read=readers.one_of(*get_args(MetricsOn)),
    ),
    Setting(
        name="log_level",
        metavar="LEVEL",
        default="info",
        help="Least level that is logged: debug, info, warning or error.",
        read=readers.one_of(*get_args(LogLevel)),
    ),
    Setting(
        name="log_format",
        metavar="FORMAT",
        default="auto",
        help="json (one object a line), console (for people), or auto: console where stderr is a terminal.",
        read=readers.one_of(*get_args(LogFormat)),
    ),
)
"""Every setting, in the order of the help."""
