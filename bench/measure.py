"""Measuring: CPU time of processes, quantiles and spread, certificates for a run, figures for people."""

import datetime as dt
import ssl
import statistics
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Pids = dict[str, list[int]]
"""Process ids by role: server, agents, workers, client."""
Facts = dict[str, object]
"""What one run measured; goes into the JSON as it is."""


def cpu_ns(pids: Pids) -> dict[str, int]:
    """Return the CPU time that each role has used so far: nanoseconds, all threads that still live.

    From the scheduler's own count: the ticks of ``cpu_times`` (10 ms) are too coarse for runs of a second.
    """
    return {role: sum(_process_cpu_ns(pid) for pid in children) for role, children in pids.items()}


def _process_cpu_ns(pid: int) -> int:
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def cpu_of_threads(pid: int) -> Counter[str]:
    """Return the CPU time of a process so far, in ns, by the names of its threads."""
    spent: Counter[str] = Counter()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):
            spent[(thread / "comm").read_text().strip()] += int((thread / "schedstat").read_text().split()[0])
    return spent


def cpu_us(before: dict[str, int], after: dict[str, int], count: int) -> dict[str, float]:
    """Return the microseconds of CPU per task by role, and their total."""
    by_role = {role: (after[role] - before[role]) / count / 1e3 for role in before}
    return by_role | {"total": sum(by_role.values())}


def quantile(values: Sequence[float], q: float) -> float:
    """Return the value below which the share ``q`` of them lies; 0 if there are none."""
    return sorted(values)[min(int(q * len(values)), len(values) - 1)] if values else 0.0


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median of some runs, and the least and greatest of them."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def in_words(facts: Facts) -> str:
    """Return the facts for people, one to a line."""
    return "\n".join(f"{name:>14}  {_value(value)}" for name, value in facts.items())


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{name} {_value(inner)}" for name, inner in value.items())
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"  # noqa: PLR2004 - digits enough for either
    return str(value)


def tls_contexts(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Make a certificate for ``localhost``; return a server's context, and a peer's that trusts it alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    both = directory / "tls.pem"
    both.write_bytes(pem + private)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(both)
    return server, ssl.create_default_context(cadata=pem.decode())
