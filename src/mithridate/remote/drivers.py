"""What reads remote objects: fsspec's file systems by their schemes, and what is wrong in one sentence."""

from __future__ import annotations

import importlib.util
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mithridate.errors import DataError, reason


@dataclass(frozen=True)
class Scheme:
    """What reads a kind of address, how it is installed, whether it lists folders and can be written; and whether its
    `cat_file` asks for a range alone."""

    driver: str
    install: str
    lists: bool = True
    written: bool = True
    ranges: bool = True


SCHEMES = {
    "s3": Scheme("s3fs", "pip install 'mithridate[s3]'"),
    "gs": Scheme("gcsfs", "pip install 'mithridate[gcs]'"),
    "hf": Scheme("huggingface_hub", "pip install huggingface_hub", written=False, ranges=False),
    "https": Scheme("aiohttp", "pip install 'mithridate[http]'", lists=False, written=False, ranges=False),
    "memory": Scheme("fsspec", "pip install fsspec"),
}


def filesystem(scheme: str) -> Any:
    """fsspec's file system for a scheme. Raises `DataError` where its driver is not installed."""
    known = SCHEMES[scheme]
    if importlib.util.find_spec(known.driver) is None:
        raise DataError(f"{scheme}:// needs {known.driver}, which is not installed: {known.install}")
    with _MAKING:
        driver = _DRIVERS.get((scheme, os.getpid()))  # none of them outlives a fork
        if driver is None:
            driver = _DRIVERS[scheme, os.getpid()] = _driver(scheme)
    return driver


_DRIVERS: dict[tuple[str, int], Any] = {}
_OPTIONS: dict[str, dict[str, Any]] = {
    "https": {"client_kwargs": {"trust_env": True}},  # proxies
    # stores beside Amazon's send the checksum of the whole object with a part of it, which would be held against it
    "s3": {"config_kwargs": {"response_checksum_validation": "when_required"}},
}
_MAKING = threading.Lock()


def _driver(scheme: str) -> Any:
    import fsspec

    try:
        return fsspec.filesystem(scheme, **_OPTIONS.get(scheme, {}))
    except Exception as error:
        raise DataError(f"{scheme}:// cannot be used: {reason(error)}; check how its driver is configured") from error


def forget_listings() -> None:
    """Forget what the drivers have listed."""
    for (_, process), driver in list(_DRIVERS.items()):
        if process == os.getpid():
            driver.invalidate_cache()


_UNREACHABLE = re.compile(
    r"Endpoint|Connect|Timeout|DNS|ServerDisconnected|gaierror|OfflineModeIsEnabled|NameResolution|ProxyError"
)
_REFUSED = re.compile(r"Permission|Credential|Token|Unauthorized|Forbidden|AccessDenied|GatedRepo")
_REFUSED_WORDS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "Forbidden", "Unauthorized")


def kind_of(error: BaseException) -> str:
    """What an error of a driver is: missing, refused, unreachable, or other."""
    return _told(error)[0]


def _told(error: BaseException) -> tuple[str, BaseException]:
    """What an error is, and which of those that it wraps tells; drivers call it missing where they got no answer."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and len(chain) < 16:
        chain.append(following)
        following = following.__cause__ or following.__context__
    for kind in ("unreachable", "refused", "missing"):
        for each in chain:
            if _is(kind, each):
                return kind, each
    return "other", error


def _is(kind: str, error: BaseException) -> bool:
    name = type(error).__name__
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    if kind == "unreachable":
        return isinstance(error, ConnectionError | TimeoutError) or _UNREACHABLE.search(name) is not None
    if kind == "refused":
        said = any(word in str(error) for word in _REFUSED_WORDS)
        return status in (401, 403) or said or _REFUSED.search(name) is not None
    return isinstance(error, FileNotFoundError | NotADirectoryError) or status == 404


def remote_error(path: Path | str, error: BaseException, doing: str = "read") -> DataError:
    """The sentence for what a driver met at `path`."""
    if isinstance(error, DataError):
        return error
    kind, told = _told(error)
    said = reason(told)
    sentence = {
        "missing": f"{path} does not exist ({said}); check bucket and name, and the region or endpoint",
        "refused": f"access to {path} is refused ({said}); check the credentials that its driver uses",
        "unreachable": f"{path} cannot be reached ({said}); check the network, the name and the endpoint",
        "other": f"cannot {doing} {path}: {said}; try again, or copy it first",
    }
    return DataError(sentence[kind])


@contextmanager
def remote_errors(path: Path, doing: str) -> Iterator[None]:
    """Inside, what a driver raises becomes a `DataError` of one sentence."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise remote_error(path, error, doing) from error
