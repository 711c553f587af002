"""Fetch one published file: its address and checksum -> the verified file in a folder, resumed where it broke off."""

from __future__ import annotations

import hashlib
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote, urlsplit

import msgspec

from shared.errors import BundleError, InputError
from shared.vision.catalogue import BUNDLES_VARIABLE, UpstreamFile, file_sha256

TIMEOUT_S = 30.0  # without a byte: a stalled server, or a network that went away
CHUNK_BYTES = 1 << 18  # what a killed download loses at most
RESUME = "run the same command again to go on from there"
ELSEWHERE = "try again later, or name a URL or folder that holds the file with --mirror"

Hear = Callable[[str, int, int], None]  # what is being done, bytes done, bytes in all


class Origin(msgspec.Struct, frozen=True):
    """Where a partial file came from, kept beside it."""

    url: str
    validator: str | None  # the server's ETag or date, which If-Range compares


class Download:
    """One file on its way into a folder: NAME.partial and where it came from, then NAME."""

    def __init__(self, wanted: UpstreamFile, url: str, folder: Path, hear: Hear, timeout_s: float = TIMEOUT_S) -> None:
        self._wanted, self._url, self._hear, self._timeout_s = wanted, url, hear, timeout_s
        self._target = folder / wanted.name
        self._partial = folder / f"{wanted.name}.partial"
        self._origin_file = folder / f"{wanted.name}.partial.json"
        self._digest, self._have_bytes = hashlib.sha256(), 0

    def run(self) -> Path:
        """The file, whole and with the right checksum, however much of it was there already.

        BundleError: nothing answers, or with another file; cut off (what came is kept); wrong checksum (thrown away);
        no room.
        """
        try:
            if not (self._target.is_file() and checked(self._wanted, self._target, self._hear)):
                self._complete()
        except OSError as error:  # the network's own are told apart where they happen
            cure = f"make room, or set {BUNDLES_VARIABLE} to a folder on another disk; then {RESUME}"
            raise BundleError(f"{error.filename or self._partial}: {error.strerror}; {cure}") from error
        return self._target

    def _complete(self) -> None:
        self._take_up()
        if self._have_bytes < self._wanted.bytes:
            with self._open() as response:
                self._agree(response)
                self._append(response)
        if self._digest.hexdigest() != self._wanted.sha256:
            self._forget()
            raise BundleError(f"{self._url}: what came has another SHA-256 checksum; thrown away; {ELSEWHERE}")
        self._partial.replace(self._target)
        self._origin_file.unlink(missing_ok=True)

    def _forget(self) -> None:
        self._partial.unlink(missing_ok=True)
        self._origin_file.unlink(missing_ok=True)
        self._digest, self._have_bytes = hashlib.sha256(), 0

    def _take_up(self) -> None:
        """Count in what an earlier run left."""
        if not self._partial.exists():
            return
        with self._partial.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK_BYTES):
                self._count(chunk, "checking")
        if self._have_bytes > self._wanted.bytes:
            self._forget()

    def _count(self, chunk: bytes, doing: str) -> None:
        self._digest.update(chunk)
        self._have_bytes += len(chunk)
        self._hear(f"{doing} {self._wanted.name}", self._have_bytes, self._wanted.bytes)

    def _open(self) -> http.client.HTTPResponse:
        try:
            response: http.client.HTTPResponse = urllib.request.urlopen(self._request(), timeout=self._timeout_s)
        except urllib.error.HTTPError as error:
            error.close()
            raise BundleError(f"{self._url}: HTTP {error.code} ({error.reason}); {ELSEWHERE}") from error
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", error)
            reason = getattr(cause, "strerror", None) or cause
            raise BundleError(f"{self._url}: cannot be reached ({reason}); {ELSEWHERE}") from error
        return response

    def _request(self) -> urllib.request.Request:
        headers = {"User-Agent": "sightline", "Accept-Encoding": "identity"}
        if self._have_bytes:
            headers["Range"] = f"bytes={self._have_bytes}-"
            origin = self._origin()
            # from another address only the checksum can say whether the pieces belong together
            if origin is not None and origin.url == self._url and origin.validator:
                headers["If-Range"] = origin.validator
        return urllib.request.Request(self._url, headers=headers)

    def _origin(self) -> Origin | None:
        try:
            return msgspec.json.decode(self._origin_file.read_bytes(), type=Origin)
        except (OSError, msgspec.MsgspecError):
            return None

    def _agree(self, response: http.client.HTTPResponse) -> None:
        """See from the headers that this is the file, and from which byte on it comes."""
        length = response.headers.get("Content-Length")
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
            if span is None or int(span[1]) != self._have_bytes or span[2] not in ("*", str(self._wanted.bytes)):
                said = response.headers.get("Content-Range")
                raise BundleError(f"{self._url}: answered with bytes of another file ({said}); {ELSEWHERE}")
        elif length not in (None, str(self._wanted.bytes)):
            raise BundleError(f"{self._url}: {length} bytes instead of {self._wanted.bytes}, another file; {ELSEWHERE}")
        else:
            self._forget()  # the whole file comes: it changed, or the server knows no ranges
            self._origin_file.write_bytes(msgspec.json.encode(Origin(self._url, _validator(response))))

    def _append(self, response: http.client.HTTPResponse) -> None:
        with self._partial.open("ab") as file:
            for chunk in self._chunks(response):
                file.write(chunk)
                file.flush()  # a killed download loses nothing that was counted
                self._count(chunk, "fetching")

    def _chunks(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        while self._have_bytes < self._wanted.bytes:
            try:
                chunk = response.read(CHUNK_BYTES)
            except (OSError, http.client.HTTPException) as error:
                raise self._broken_off(str(error)) from error
            if not chunk:
                raise self._broken_off("the server closed the connection")
            yield chunk

    def _broken_off(self, reason: str) -> BundleError:
        done = f"{self._have_bytes / 1e6:.1f} of {self._wanted.bytes / 1e6:.1f} MB"
        return BundleError(f"{self._url}: broke off after {done} ({reason}); {RESUME}")


def _validator(response: http.client.HTTPResponse) -> str | None:
    etag: str = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")  # a weak ETag is none


def checked(wanted: UpstreamFile, path: Path, hear: Hear) -> bool:
    """Whether the file there is the one wanted, by size and checksum. Raises OSError."""
    if path.stat().st_size != wanted.bytes:
        return False
    return file_sha256(path, lambda done: hear(f"checking {wanted.name}", done, wanted.bytes)) == wanted.sha256


def find_source(wanted: UpstreamFile, mirror: str | None) -> str | Path:
    """Address of the file at its publisher or the mirror, which is a URL or a folder holding it by its own name."""
    if mirror is None:
        return wanted.url
    if "://" not in mirror:
        return Path(mirror).expanduser() / wanted.name
    try:
        scheme = urlsplit(mirror).scheme
    except ValueError as error:
        raise InputError(f"--mirror {mirror}: not a URL ({error}); correct it") from error
    if scheme not in ("http", "https"):
        raise InputError(f"--mirror {mirror}: only http and https can be fetched from; correct it, or name a folder")
    return f"{mirror.rstrip('/')}/{quote(wanted.name)}"


def take_from_folder(wanted: UpstreamFile, path: Path, hear: Hear) -> Path:
    """The file where it lies, once its checksum was seen to be right; BundleError when it is missing or another."""
    try:
        right = checked(wanted, path, hear)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); --mirror must hold {wanted.name}") from error
    if not right:
        raise BundleError(f"{path}: its size or SHA-256 checksum is not the published one; copy the file again")
    return path
