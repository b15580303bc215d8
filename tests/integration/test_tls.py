"""TLS with a certificate of one's own: who may connect, what is refused, and files that change while serving."""

import asyncio
import contextlib
import shutil
import ssl
import subprocess
import sys

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.errors import SettingsError
from gateway.server.tls import Certificate
from tests.certificates import make_certificate, private_pem
from tests.gateway_fixture import policy_text
from tests.integration.process_fixture import Process, short_folder

BODY = {"model": "large", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def files(tmp_path):
    """The certificate and the key in use, and what can take their place."""
    for name in ("one", "two"):
        make_certificate(tmp_path, name)
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    replace(cert, key, "one")
    return cert, key


def replace(cert, key, name):
    shutil.copy(cert.parent / f"{name}.crt", cert)
    shutil.copy(cert.parent / f"{name}.key", key)


def trusting(cert):
    context = ssl.create_default_context(cafile=cert)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


async def subject(url):
    """Whose certificate a new connection is shown."""
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]), ssl=blind)
    shown = x509.load_der_x509_certificate(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return shown.subject.rfc4514_string()


async def until_subject(url, wanted):
    async with asyncio.timeout(10):
        while await subject(url) != wanted:
            await asyncio.sleep(0.1)


async def test_a_changed_certificate_serves_new_connections_and_cuts_none(start_gateway, upstream, files):
    """A stream that runs goes on, its connection serves the next request, and new ones see the new certificate."""
    cert, key = files
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False, tls_cert=cert, tls_key=key)
    assert gateway.url.startswith("https://")
    first = trusting(cert)
    one = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(headers=gateway.auth, connector=one) as session:
        ask = f"{gateway.base_url}/chat/completions"
        assert (await session.post(ask, json=BODY, ssl=first)).status == 200
        replace(cert, key, "two")
        await until_subject(gateway.url, "CN=two")
        assert (await session.post(ask, json=BODY, ssl=first)).status == 200  # on its old connection
    async with aiohttp.ClientSession(headers=gateway.auth) as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.post(ask, json=BODY, ssl=first)
        assert (await session.post(ask, json=BODY, ssl=trusting(cert))).status == 200


async def test_a_certificate_that_cannot_be_used_changes_nothing(start_gateway, upstream, files):
    """With a key of another or with garbage, the old certificate serves on; the next good one is used."""
    cert, key = files
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False, tls_cert=cert, tls_key=key)
    shutil.copy(cert.parent / "two.crt", cert)
    await asyncio.sleep(2.5)
    assert await subject(gateway.url) == "CN=one"
    key.write_text("garbage")
    await asyncio.sleep(1.5)
    assert await subject(gateway.url) == "CN=one"
    replace(cert, key, "two")
    await until_subject(gateway.url, "CN=two")


async def test_old_protocols_and_plain_http_are_refused(start_gateway, upstream, files):
    """TLS 1.2 is the least; a client without TLS gets nothing, and others are served meanwhile."""
    cert, key = files
    gateway = await start_gateway(policy_text(upstream.base_url), edge=False, tls_cert=cert, tls_key=key)
    port = int(gateway.url.rpartition(":")[2])
    old = trusting(cert)
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", port, ssl=old)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
    assert b"200" not in await asyncio.wait_for(reader.read(), 10)
    writer.close()
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = trusting(cert)
        context.minimum_version = context.maximum_version = version
        async with aiohttp.ClientSession() as session, session.get(f"{gateway.url}/healthz", ssl=context) as response:
            assert response.status == 200


def test_files_that_cannot_be_used_are_named(files, tmp_path):
    """Each mistake is said with the setting, its variable and the file; nobody is asked for a passphrase."""
    cert, key = files
    locked = tmp_path / "locked.key"
    locked.write_bytes(private_pem(ec.generate_private_key(ec.SECP256R1()), b"secret"))
    garbage = tmp_path / "garbage"
    garbage.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for bad_cert, bad_key, said in (
        (tmp_path / "none", key, "--tls-cert (FIRSTDRAFT_TLS_CERT)"),
        (cert, tmp_path / "none", "No such file"),
        (cert, tmp_path / "two.key", "does not belong to the certificate"),
        (cert, locked, "without a passphrase"),
        (garbage, key, "holds no certificate that can be read"),
        (cert, garbage, "holds no private key that can be used"),
    ):
        with pytest.raises(SettingsError, match=said.replace("(", r"\(").replace(")", r"\)")) as failure:
            Certificate(bad_cert, bad_key)
        assert str(bad_key if "key" in failure.value.message.split()[0] else bad_cert) in failure.value.message


@pytest.mark.slow
async def test_workers_serve_tls_and_commands_check_it(upstream, files, tmp_path):
    """Every worker takes a changed certificate up; `status` and `ask` trust what `--ca` names, and nothing else."""
    cert, key = files
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "policy.yaml").write_text(policy_text(upstream.base_url))
    flags = ("--workers", "2", "--no-edge", "--tls-cert", str(cert), "--tls-key", str(key))
    with short_folder() as state:
        async with Process(tmp_path / "policies", state, *flags) as gateway:
            assert gateway.url.startswith("https://")
            await until_subject(gateway.url, "CN=one")
            command = [sys.executable, "-m", "gateway.cli.main", "status", "--url", gateway.url, "--wait", "20"]
            done = await asyncio.to_thread(
                subprocess.run, [*command, "--ca", str(cert)], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr
            done = await asyncio.to_thread(
                subprocess.run, [*command[:-1], "0"], capture_output=True, text=True, env={"PATH": "/usr/bin"}
            )
            assert done.returncode == 1
            replace(cert, key, "two")
            await asyncio.sleep(2.5)
            assert {await subject(gateway.url) for _ in range(12)} == {"CN=two"}
