"""What sources say instead of a video: encoded bodies, pages of text, and the error codes of object stores."""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ERROR_BYTES = 8192
"""So much of an error's body is read."""
STEP_BYTES = 1 << 20
"""Decoded bytes that are in memory at the same time."""
CODES = frozenset(
    {
        *("AccessDenied", "AllAccessDisabled", "AuthorizationHeaderMalformed", "AuthorizationQueryParametersError"),
        *("ExpiredToken", "InternalError", "InvalidAccessKeyId", "InvalidArgument", "InvalidBucketName"),
        *(
            "InvalidObjectState",
            "InvalidRange",
            "InvalidRequest",
            "InvalidSecurity",
            "InvalidToken",
            "MethodNotAllowed",
        ),
        *(
            "MethodNotAllowed",
            "NoSuchBucket",
            "NoSuchKey",
            "NoSuchVersion",
            "PermanentRedirect",
            "RequestTimeTooSkewed",
        ),
        *("ServiceUnavailable", "SignatureDoesNotMatch", "SlowDown", "TemporaryRedirect", "UserProjectMissing"),
        *("AuthenticationFailed", "AuthorizationFailure", "BlobArchived", "BlobNotFound", "ContainerNotFound"),
    }
)
"""Of Amazon S3 and what speaks like it (Google Cloud Storage, MinIO), and of Azure Blob Storage."""
EXPIRED = "RequestExpired"
"""S3 calls it AccessDenied with the message "Request has expired"; a backend has to sign again."""
_CODE = re.compile(rb"<Code>\s*([A-Za-z]{1,60})\s*</Code>")
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:\?xml|!doctype html|html|error|head|body)[\s>?]", re.IGNORECASE)
_GZIP_MAGIC = b"\x1f\x8b"


class UnknownEncodingError(Exception):
    """The body has a content encoding that is not decoded."""


class DamagedEncodingError(Exception):
    """The encoded body is damaged, or ends too early."""


def error_code(headers: Mapping[str, str], body: bytes) -> str:
    """Return the code word of an object store's error, one of `CODES` or `EXPIRED`, or ""."""
    found = _CODE.search(body)
    code = found[1].decode() if found else headers.get("x-ms-error-code", "")
    if code == "AccessDenied" and b"Request has expired" in body:
        return EXPIRED
    return code if code in CODES else ""


def is_page(head: bytes, content_type: str) -> bool:
    """Return whether the beginning of a body is that of a page (HTML or XML), or of JSON that calls itself so."""
    if _PAGE.match(head):
        return True
    return "json" in content_type.lower() and head.lstrip()[:1] in {b"{", b"["}


REGISTERED = frozenset(("gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress", "dcb", "dcz", "exi"))
"""Encodings in IANA's registry that change the bytes."""


class Decoder(Protocol):
    """Decodes a body piece by piece."""

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` decodes to, at most `STEP_BYTES` at a time. Raises DamagedEncodingError."""

    def end(self) -> None:
        """Raise DamagedEncodingError where the body is not complete."""


def decoder(content_encoding: str) -> Decoder | None:
    """Return the decoder of a Content-Encoding, None where the body is as it is. Raises UnknownEncodingError.

    Words that are no encoding of HTTP's say nothing of the body, and browsers ignore them: `aws-chunked`, which S3
    stores of an upload's transfer; `base64`, `utf-8` or `binary`, which uploads have copied from examples.
    """
    words = [word.strip().lower() for word in content_encoding.split(",")]
    encodings = [word for word in words if word in REGISTERED]
    if not encodings:
        return None
    if len(encodings) > 1 or encodings[0] not in {"gzip", "x-gzip", "deflate"}:
        raise UnknownEncodingError
    return _Inflater(gzip=encodings[0] != "deflate")


class _Inflater:
    """gzip of any number of members, or deflate, with zlib's header or without. What is not gzip stays as it is."""

    def __init__(self, *, gzip: bool) -> None:
        self._gzip = gzip
        self._head = b""
        self._inflate: zlib._Decompress | None = None
        self._plain = False

    def decode(self, data: bytes) -> Iterator[bytes]:
        if self._inflate is None and not self._plain:
            self._head += data
            if len(self._head) < len(_GZIP_MAGIC):
                return
            data, self._head = self._head, b""
            self._plain = self._gzip and not data.startswith(_GZIP_MAGIC)
            self._inflate = None if self._plain else zlib.decompressobj(self._window(data))
        if self._inflate is None:
            yield data
            return
        while data:
            try:
                decoded = self._inflate.decompress(data, STEP_BYTES)
            except zlib.error:
                raise DamagedEncodingError from None
            data = self._inflate.unconsumed_tail or self._inflate.unused_data
            if decoded:
                yield decoded
            if self._inflate.eof:
                if not (self._gzip and data.startswith(_GZIP_MAGIC)):
                    return  # what follows is padding
                self._inflate = zlib.decompressobj(self._window(data))

    def _window(self, data: bytes) -> int:
        if self._gzip:
            return 16 + zlib.MAX_WBITS
        has_header = data[0] & 0x0F == zlib.DEFLATED and int.from_bytes(data[:2], "big") % 31 == 0
        return zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS

    def end(self) -> None:
        if self._head or (self._inflate is not None and not self._inflate.eof):
            raise DamagedEncodingError
