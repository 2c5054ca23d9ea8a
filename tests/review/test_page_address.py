"""Where the page listens: this machine, or with a certificate others too."""

import datetime
import ssl
import stat

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ssl_pipeline.errors import UserError
from ssl_pipeline.review.page_address import PageAddress, write_opening_page
from ssl_pipeline.review.server import build_app
from stages.commands.review import open_session, serve_review
from tests.review.conftest import TOKEN, serve

HOST = "review.example"


@pytest.fixture
def certificate(tmp_path):
    """Files of a certificate of HOST, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    day, now = datetime.timedelta(days=1), datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "page.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "page.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return tmp_path / "page.crt", tmp_path / "page.key"


def test_another_machine_is_served_with_a_certificate_by_the_name_that_was_given(page, certificate):
    PageAddress(HOST, 8765, *certificate).check()
    app = build_app(open_session(page.study, "anna"), TOKEN, HOST)
    files = dict(zip(("ssl_certfile", "ssl_keyfile"), certificate, strict=True))
    trusted = ssl.create_default_context(cafile=certificate[0])
    with serve(app, **files) as port, httpx.Client(verify=trusted) as browser:

        def ask(path, **headers):
            return browser.get(
                f"https://127.0.0.1:{port}{path}",
                headers={"host": HOST, **headers},
                extensions={"sni_hostname": HOST},
            )

        first = ask(f"/?token={TOKEN}")
        assert first.status_code == 303 and "secure" in first.headers["set-cookie"].lower()
        cookie = first.headers["set-cookie"].partition(";")[0]
        assert ask("/status", cookie=cookie, origin=f"https://{HOST}").json()["total"] == 7
        for wrong in ({"host": "evil.example"}, {"origin": f"http://{HOST}"}):
            assert ask("/status", cookie=cookie, **wrong).status_code == 403
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/?token={TOKEN}")


def test_without_a_certificate_this_machine_alone_is_served(page):
    for host in ("127.0.0.1", "localhost"):
        PageAddress(host).check()
    with pytest.raises(UserError, match="which only TLS protects") as refused:
        serve_review(page.study, "anna", PageAddress(HOST, 9000))
    assert "ssh -L 9000:127.0.0.1:9000 HOST" in str(refused.value)


def test_what_is_no_address_or_no_certificate_is_refused_in_a_sentence(certificate, tmp_path):
    crt, key = certificate
    for wrong, why in (
        (PageAddress("0.0.0.0", 1, crt, key), "give the name or the IPv4 address"),
        (PageAddress("::1", 1, crt, key), "give the name or the IPv4 address"),
        (PageAddress(HOST, 1, crt), "are a pair"),
        (PageAddress(HOST, 1, crt, crt), "two PEM files that belong together"),
        (PageAddress(HOST, 1, tmp_path / "none", key), "No such file"),
    ):
        with pytest.raises(UserError, match=why):
            wrong.check()


def test_a_port_in_use_is_said_in_a_sentence(page):
    with (
        serve(build_app(open_session(page.study, "anna"), TOKEN)) as port,
        pytest.raises(UserError, match="or is taken: choose another --port"),
    ):
        serve_review(page.study, "anna", PageAddress(port=port))


def test_the_file_with_the_token_is_for_its_owner_alone(open_umask, tmp_path):
    write_opening_page(tmp_path / "page.html", PageAddress().url(TOKEN))
    assert stat.S_IMODE((tmp_path / "page.html").stat().st_mode) == 0o600
    assert f"http://127.0.0.1:8765/?token={TOKEN}" in (tmp_path / "page.html").read_text()
