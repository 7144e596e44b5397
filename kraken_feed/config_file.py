"""The configuration's file: the first that there is."""

from __future__ import annotations

from collections.abc import Mapping

from .config import Config, candidates, parse
from .errors import ConfigError


def load(explicit: str | None, environ: Mapping[str, str]) -> tuple[Config, str | None]:
    """The configuration of the first file there is, and its path; the defaults and None if there is none.

    Raises:
        ConfigError: the file that was named, by ``explicit`` or the environment, is not there; one cannot be read; or
            as :func:`kraken_feed.config.parse`.
    """
    for path, required in candidates(environ, explicit):
        try:
            with open(path, "rb") as file:
                return parse(file.read(), path), path
        except OSError as error:
            if required or not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise ConfigError(
                    f"Cannot read the configuration {path}.",
                    why=f"{error.strerror}.",
                    remedy="Check the path and who may read it, or name another with --config.",
                ) from error
    return Config(), None
