"""X.509 for the OPC UA server: its own certificate out of settings or made here; which clients are trusted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from msgspec import Struct

from shared.errors import SettingsError
from shared.files import replacing

KEY_BITS = 2048  # Basic256Sha256 takes 2048 to 4096
VALID = timedelta(days=3650)  # every client has to trust a new one by hand
UNREADABLE = (OSError, ValueError, TypeError, UnsupportedAlgorithm)
log = structlog.get_logger()


class Identity(Struct, frozen=True):
    """Who the server is."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey
    uri: str  # of the application; the certificate says the same


def given_identity(certificate_file: Path, key_file: Path, uri: str) -> Identity:
    """From files of the settings; ``uri`` where the certificate names none.

    Raises:
        SettingsError: a file cannot be read, or they do not belong together.
    """
    try:
        certificate = read_certificate(certificate_file)
    except UNREADABLE as error:
        raise SettingsError(f"opcua.certificate: {certificate_file} is no certificate in PEM or DER: {error}") from None
    try:
        key = _read_key(key_file)
    except UNREADABLE as error:
        raise SettingsError(f"opcua.private_key: {key_file} is no RSA key without password: {error}") from None
    if certificate.public_key() != key.public_key():
        raise SettingsError(f"opcua.private_key: {key_file} is not the key of {certificate_file}")
    return Identity(certificate, key, next(iter(_uris(certificate)), uri))


def own_identity(folder: Path, name: str, uri: str, now: datetime) -> Identity:
    """Self-signed, kept as ``<name>.der`` and ``<name>.key`` in ``folder``; made when missing, renewed when expired.

    Raises:
        SettingsError: the folder cannot be written.
    """
    key_file, certificate_file = folder / f"{name}.key", folder / f"{name}.der"
    try:
        key = _kept_key(key_file) or _new_key(key_file)
        certificate = _kept_certificate(certificate_file, key, uri, now)
        if certificate is None:
            certificate = _self_signed(key, uri, now)
            with replacing(certificate_file) as unfinished:
                unfinished.write_bytes(certificate.public_bytes(Encoding.DER))
            log.info("certificate made: clients must trust it", file=str(certificate_file))
    except OSError as error:
        raise SettingsError(f"state_dir: {folder} cannot be written: {error.strerror}") from error
    return Identity(certificate, key, uri)


def is_trusted(folder: Path, certificate: x509.Certificate) -> bool:
    """Is it one of the folder's? Read anew each time, so that a file put there counts at once."""
    return any(one == certificate for one in _trusted(folder))


def _trusted(folder: Path) -> Iterator[x509.Certificate]:
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        log.warning("cannot be read: nobody is trusted", folder=str(folder), error=error.strerror)
        return
    for file in files:
        try:
            yield read_certificate(file)
        except UNREADABLE:
            log.warning("not a certificate in PEM or DER", file=str(file))


def read_certificate(file: Path) -> x509.Certificate:
    """PEM or DER; one of `UNREADABLE` when it is neither."""
    content = file.read_bytes()
    pem = content.lstrip().startswith(b"-----")
    return x509.load_pem_x509_certificate(content) if pem else x509.load_der_x509_certificate(content)


def _read_key(file: Path) -> rsa.RSAPrivateKey:
    content = file.read_bytes()
    load = load_pem_private_key if content.lstrip().startswith(b"-----") else load_der_private_key
    key = load(content, password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError("it is of another kind")
    return key


def _kept_key(file: Path) -> rsa.RSAPrivateKey | None:
    try:
        return _read_key(file)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        log.warning("damaged: a new key is made", file=str(file))
        return None


def _new_key(file: Path) -> rsa.RSAPrivateKey:
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(content)
    return key


def _kept_certificate(file: Path, key: rsa.RSAPrivateKey, uri: str, now: datetime) -> x509.Certificate | None:
    try:
        certificate = read_certificate(file)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        log.warning("damaged: a new certificate is made", file=str(file))
        return None
    holds = certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc
    return certificate if holds and certificate.public_key() == key.public_key() and uri in _uris(certificate) else None


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def _self_signed(key: rsa.RSAPrivateKey, uri: str, now: datetime) -> x509.Certificate:
    """As OPC 10000-6, 6.2.2 asks of an application."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Sightline")])
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # a client's clock may be slow
        .not_valid_after(now + VALID)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
