"""Where the stores are, spelled as their clients want it; passwords come from the settings."""

from __future__ import annotations

from urllib.parse import quote

from pydantic import SecretStr

from arb_ray.app.settings import Settings


def postgres_dsn(settings: Settings) -> str:
    """Return the connection URI, password included: keep it out of logs and arguments."""
    section = settings.postgres
    user = quote(section.user, safe="")
    database = quote(section.database, safe="")
    return (
        f"postgresql://{user}{_password(section.password)}@{section.host}:{section.port}/{database}"
    )


def redis_url(settings: Settings) -> str:
    """Return the Redis URL, password included; the embedded server has none."""
    section = settings.redis
    has_login = not section.embedded
    user = quote(section.user, safe="") if section.user and has_login else ""
    password = _password(section.password) if has_login else ""
    login = f"{user}{password}@" if user or password else ""
    where = f"{login}{section.host}:{section.port}/{section.database_number}"
    if section.embedded or not section.tls:
        return f"redis://{where}"
    checks = "ssl_cert_reqs=required&ssl_check_hostname=true"
    if section.tls_ca_file:
        checks += f"&ssl_ca_certs={quote(section.tls_ca_file, safe='')}"
    return f"rediss://{where}?{checks}"


def _password(secret: SecretStr | None) -> str:
    return f":{quote(secret.get_secret_value(), safe='')}" if secret else ""
