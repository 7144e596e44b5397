"""Keep API credentials that cannot be printed, make nonces that only increase, and sign requests for Kraken.

Source: https://docs.kraken.com/api/docs/guides/spot-rest-auth
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re

from ..errors import ConfigError

KEY_LENGTH, SECRET_LENGTH = 56, 88  # characters; the same for every key and secret of Kraken
SECRET_SHAPE = re.compile(r"[A-Za-z0-9+/]{86}==")  # 64 bytes of base64
KEY_SHAPE = re.compile(r"[A-Za-z0-9+/]{56}")


class Credentials:
    """One API key: its public part, its secret, and a one-time password if the key was made with 2FA.

    ``source`` says where the pair came from, for messages. No form of printing shows more than the key's last four
    characters.

    Raises:
        ConfigError: the key is empty or has blanks inside, the secret is not base64, or one of them has the shape of
            the other.
    """

    __slots__ = ("key", "otp", "secret", "source")

    def __init__(self, key: str, secret: str, otp: str | None = None, *, source: str = "the program") -> None:
        self.key = key.strip()
        if not self.key or not self.key.isascii() or not self.key.isprintable() or " " in self.key:
            raise ConfigError(
                f"The API key from {source} cannot be a key of Kraken's.",
                why="It is empty, or contains blanks or characters that are not ASCII.",
                remedy="Copy the key once more from Kraken's settings (Security > API).",
            )
        secret = "".join(secret.split())
        _refuse_swapped(self.key, secret, source)
        try:
            self.secret = base64.b64decode(secret, validate=True)
        except (binascii.Error, ValueError):
            self.secret = b""
        if not self.secret:
            raise ConfigError(
                f"The API secret from {source} is not base64.",
                why='Kraken\'s "private key" is 88 characters of base64. This is not.',
                remedy="Copy the private key once more; if it is lost, make a new API key.",
            )
        self.otp = (otp or "").strip() or None
        self.source = source

    @property
    def tail(self) -> str:
        """The key's last four characters, to tell keys apart."""
        return self.key[-4:] if len(self.key) >= 12 else "????"

    def secrets(self) -> list[str]:
        """Return every text that must not leave the process."""
        texts = [self.key, base64.b64encode(self.secret).decode()]
        return [*texts, self.otp] if self.otp else texts

    def __repr__(self) -> str:
        return f"<Credentials …{self.tail} from {self.source}>"

    def __reduce__(self) -> str:
        raise TypeError("credentials are not copied or stored")


def _refuse_swapped(key: str, secret: str, source: str) -> None:
    """Raise ConfigError if the key has the shape of a secret, or the secret that of a key. A secret in place of the key
    would be sent to Kraken, and partly shown."""
    lengths = f"Kraken's API key has {KEY_LENGTH} characters, its private key {SECRET_LENGTH}, with == at its end."
    if SECRET_SHAPE.fullmatch(key) and len(secret) <= KEY_LENGTH:
        raise ConfigError(
            f"The API key and the API secret from {source} are swapped.",
            why="What is given as the key has the length of a private key. Nothing was sent.",
            remedy=f"Exchange the two. {lengths}",
        )
    if SECRET_SHAPE.fullmatch(key):
        raise ConfigError(
            f"The API key from {source} is a private key.",
            why="It has the length of one. Nothing was sent.",
            remedy=f"Copy the API key once more. {lengths}",
        )
    if KEY_SHAPE.fullmatch(secret):
        raise ConfigError(
            f"The API secret from {source} is an API key.",
            why="It has the length of one. Nothing was sent.",
            remedy=f"Copy the private key once more; if it is lost, make a new API key. {lengths}",
        )


# An hour, added to a saved nonce that may be too low. A power cut loses only the saves of the last seconds.
UNSAVED_NS = 3_600_000_000_000
AHEAD_NS = 10_000_000_000  # ten seconds, after the first refusal in a row
AHEAD_TIMES = 30  # factor after each further one: 5 minutes, 2.5 hours, 3 days, 3 months, 8 years
AHEAD_MOST_NS = 100 * 365 * 86_400 * 1_000_000_000  # a century: no clock is further off than that
MOST = 2**63 - 2**60  # upper limit of a step: Kraken and the state's file have room for 64 bits


class Nonce:
    """Makes nonces: nanoseconds since 1970, strictly increasing even when the clock steps back.

    Kraken accepts a nonce only if it is above all that it has accepted for the key, so all users of a key share one
    instance. ``last`` is the highest that an earlier run is known to have used.
    """

    def __init__(self, last: int = 0) -> None:
        self.last = last
        self._ahead_ns = 0  # size of the last step, while refusals follow each other

    def refused(self) -> None:
        """Raise the nonce after a refusal. The first step is small, since other programs that use the key must then
        exceed it; each consecutive refusal makes a larger step."""
        self._ahead_ns = min(self._ahead_ns * AHEAD_TIMES or AHEAD_NS, AHEAD_MOST_NS)
        self.last = max(self.last, min(self.last + self._ahead_ns, MOST))

    def accepted(self) -> None:
        """Note that Kraken has accepted a nonce."""
        self._ahead_ns = 0

    def start(self, now_ns: int) -> None:
        """Prepare for a new run, which starts at wall clock ``now_ns`` (nanoseconds). If the clock is behind the saved
        nonce, add an hour: a power cut or an old copy of the state may lack the last nonces."""
        if now_ns <= self.last:
            self.last += UNSAVED_NS

    def next(self, now_ns: int) -> int:
        """Return the next nonce for the wall clock ``now_ns``, in nanoseconds."""
        self.last = max(self.last + 1, now_ns)
        return self.last


def sign(path: str, nonce: int, body: bytes, secret: bytes) -> str:
    """Return ``API-Sign`` for ``body``, the exact bytes that will be sent to ``path`` (``/0/private/<Method>``).

    base64(HMAC-SHA512(secret, path + SHA256(nonce + body))): 88 characters. ``secret`` is the decoded one.
    """
    inner = hashlib.sha256(str(nonce).encode() + body).digest()
    return base64.b64encode(hmac.digest(secret, path.encode() + inner, "sha512")).decode()
