"""The server's own certificate, those of the settings, and the folder of trusted ones."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from structlog.testing import capture_logs

from services.link.certificates import Identity, given_identity, is_trusted, own_identity
from shared.errors import SettingsError
from tests.opcua_peer import der, identity, key_pem, pem

URI = "urn:sightline:line:plc"
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Identity]:
    """A folder in which one was made: a key takes a second."""
    folder = tmp_path_factory.mktemp("state")
    return folder, own_identity(folder, "opcua-plc", URI, NOW)


def test_the_first_start_makes_a_private_key_and_a_certificate_with_the_uri(kept: tuple[Path, Identity]) -> None:
    folder, made = kept
    assert stat.S_IMODE((folder / "opcua-plc.key").stat().st_mode) == 0o600
    names = made.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [URI]
    assert made.certificate.public_key() == made.key.public_key()
    assert made.key.key_size == 2048


def test_the_next_start_finds_them_again(kept: tuple[Path, Identity]) -> None:
    folder, made = kept
    again = own_identity(folder, "opcua-plc", URI, NOW + timedelta(days=3000))
    assert again.certificate == made.certificate


@pytest.mark.parametrize(
    ("uri", "now"), [(URI, NOW + timedelta(days=4000)), ("urn:sightline:other:plc", NOW)], ids=["expired", "other line"]
)
def test_a_certificate_that_does_not_hold_is_renewed_with_the_same_key(
    kept: tuple[Path, Identity], tmp_path: Path, uri: str, now: datetime
) -> None:
    for file in kept[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    renewed = own_identity(tmp_path, "opcua-plc", uri, now)
    assert renewed.certificate != kept[1].certificate
    assert renewed.key.public_key() == kept[1].key.public_key()
    assert renewed.certificate.not_valid_after_utc > now + timedelta(days=3000)
    assert own_identity(tmp_path, "opcua-plc", uri, now).certificate == renewed.certificate


def test_damaged_files_are_made_anew(tmp_path: Path) -> None:
    (tmp_path / "opcua-plc.key").write_bytes(b"noise")
    (tmp_path / "opcua-plc.der").write_bytes(b"noise")
    with capture_logs() as logs:
        made = own_identity(tmp_path, "opcua-plc", URI, NOW)
    assert made.certificate.public_key() == made.key.public_key()
    assert len([one for one in logs if one["event"].startswith("damaged")]) == 2
    assert stat.S_IMODE((tmp_path / "opcua-plc.key").stat().st_mode) == 0o600


def test_a_folder_that_cannot_be_written_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=rf"state_dir: {tmp_path}/nowhere cannot be written"):
        own_identity(tmp_path / "nowhere", "opcua-plc", URI, NOW)


@pytest.mark.parametrize("content", [pem, der], ids=["PEM", "DER"])
def test_files_of_the_settings_are_read_in_both_forms(tmp_path: Path, content: object) -> None:
    assert callable(content)
    (tmp_path / "own").write_bytes(content(identity("server")))
    (tmp_path / "key").write_bytes(key_pem(identity("server")))
    found = given_identity(tmp_path / "own", tmp_path / "key", URI)
    assert found.certificate == identity("server").certificate
    assert found.uri == "urn:example:server"  # as the certificate says


def test_wrong_files_of_the_settings_are_named(tmp_path: Path) -> None:
    own, key, other, wrong = (tmp_path / name for name in ("own", "key", "other", "wrong"))
    own.write_bytes(pem(identity("server")))
    key.write_bytes(key_pem(identity("server")))
    other.write_bytes(key_pem(identity("plc")))
    curve = ec.generate_private_key(ec.SECP256R1())
    wrong.write_bytes(curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    for certificate, private_key, words in (
        (tmp_path / "none", key, "opcua.certificate: .*none is no certificate"),
        (key, key, "opcua.certificate: .*key is no certificate"),
        (own, own, "opcua.private_key: .*own is no RSA key"),
        (own, wrong, "opcua.private_key: .*wrong is no RSA key without password: it is of another kind"),
        (own, other, "opcua.private_key: .*other is not the key of .*own"),
    ):
        with pytest.raises(SettingsError, match=words):
            given_identity(certificate, private_key, URI)


def test_only_certificates_in_the_folder_are_trusted(tmp_path: Path) -> None:
    (tmp_path / "a-note").write_text("no certificate")
    (tmp_path / "b-folder").mkdir()
    (tmp_path / "plc.pem").write_bytes(pem(identity("plc")))
    assert is_trusted(tmp_path, identity("plc").certificate)
    assert not is_trusted(tmp_path, identity("server").certificate)
    (tmp_path / "plc.pem").unlink()
    assert not is_trusted(tmp_path, identity("plc").certificate)
    assert not is_trusted(tmp_path / "gone", identity("plc").certificate)
