"""AWS Private CA for tests: moto's server, from PyPI, as a process on loopback."""

import functools
import http.client
import json
import os
import shutil
import subprocess
import sys
import unittest

from mesh import BIN, PROFILE, ROOT, until

MOTO = "5.2.5"
MESHCTL_AWS = BIN / "meshctl-aws"
# The SDK's own chain finds these first; nothing asks for a machine's role.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}


@functools.lru_cache(maxsize=None)
def moto():
    """Where its modules are; fetched once into target/. Skips the test where it cannot be had."""
    folder = ROOT / "target" / "moto"
    whole = folder / f".whole-{MOTO}"
    if not whole.exists():
        print(f"    fetching moto {MOTO} from PyPI …", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        fetch = subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:",
             "--target", str(folder), f"moto[server]=={MOTO}"], capture_output=True, text=True, timeout=900)
        if fetch.returncode != 0:
            raise unittest.SkipTest(f"PyPI does not give moto: {fetch.stderr.strip().splitlines()[-1:]}")
        whole.touch()
    return folder


@functools.lru_cache(maxsize=None)
def meshctl():
    """meshctl with AWS, beside the usual one, which has it not."""
    build = ["cargo", "build", "--locked", "--quiet", "-p", "meshctl", "--bin", "meshctl"]
    build += ["--release"] if PROFILE == "release" else []
    subprocess.run([*build, "--features", "aws"], cwd=ROOT, check=True)
    part = MESHCTL_AWS.with_suffix(".part")
    shutil.copy2(BIN / "meshctl", part)
    part.rename(MESHCTL_AWS)
    subprocess.run(build, cwd=ROOT, check=True)
    return MESHCTL_AWS


# Runs moto; with `whole`, what it lacks of AWS Private CA is added, as AWS documents it.
SERVER = r'''
import base64, datetime, json, sys
sys.path.insert(0, sys.argv[1])
host, whole = sys.argv[2], sys.argv[3] == "whole"
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from moto.acmpca import models, responses
from moto.core.utils import utcnow
from moto.server import main

asked = {}
issue = responses.ACMPCAResponse.issue_certificate

def note(self):
    asked["validity"] = self._get_param("Validity")
    return issue(self)

def extensions(self, csr, template):
    found = usual(self, csr, template)
    if template and template.endswith("template/SubordinateCACertificate_PathLen0/V1"):
        usage = dict(content_commitment=False, key_encipherment=False, data_encipherment=False,
                     key_agreement=False, encipher_only=False, decipher_only=False)
        found += [
            (x509.BasicConstraints(ca=True, path_length=0), True),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False),
            (x509.SubjectKeyIdentifier.from_public_key(csr.public_key()), False),
            (x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **usage), True)]
    return found

def generate(self, subject, public_key, extensions):
    validity, now = asked.get("validity") or {}, utcnow()
    end = now + datetime.timedelta(days=365)
    if validity.get("Type") == "ABSOLUTE":
        end = datetime.datetime.fromtimestamp(validity["Value"], datetime.timezone.utc)
    elif validity.get("Type") in ("DAYS", "YEARS"):
        end = now + datetime.timedelta(days=validity["Value"] * {"DAYS": 1, "YEARS": 365}[validity["Type"]])
    builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(self.issuer).public_key(public_key)
               .serial_number(x509.random_serial_number())
               .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(end))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

if whole:
    usual = models.CertificateAuthority._x509_extensions
    models.CertificateAuthority._x509_extensions = extensions
    models.CertificateAuthority.generate_cert = generate
    responses.ACMPCAResponse.issue_certificate = note
main(["-H", host, "-p", "5000"])
'''


class Aws:
    """One moto. `whole`: with the template and the validity that it lacks."""

    def __init__(self, mesh, whole=True, number=201):
        self.mesh = mesh
        self.host = mesh.address(number)
        self.url = f"http://{self.host}:5000"
        script = mesh.folder / "moto.py"
        script.write_text(SERVER)
        self.process = mesh.start("moto", [
            sys.executable, script, moto(), self.host, "whole" if whole else "bare"])
        until("moto answers", lambda: self.ask("ListCertificateAuthorities") is not None, 60)

    def ask(self, action, **body):
        connection = http.client.HTTPConnection(self.host, 5000, timeout=20)
        connection.request("POST", "/", json.dumps(body), {
            "X-Amz-Target": f"ACMPrivateCA.{action}", "Content-Type": "application/x-amz-json-1.1",
            "Authorization": "AWS4-HMAC-SHA256 Credential=test/20261126/eu-central-1/acm-pca/aws4_request, "
                             "SignedHeaders=host, Signature=x"})
        response = connection.getresponse()
        data = response.read()
        connection.close()
        if response.status != 200:
            raise AssertionError(f"{action}: {response.status} {data!r}")
        return json.loads(data) if data else {}

    def authority(self, name="Example mesh root"):
        """Makes a root CA, active; its ARN."""
        import base64
        made = self.ask("CreateCertificateAuthority", CertificateAuthorityType="ROOT", CertificateAuthorityConfiguration={
            "KeyAlgorithm": "RSA_2048", "SigningAlgorithm": "SHA256WITHRSA", "Subject": {"CommonName": name}})
        arn = made["CertificateAuthorityArn"]
        csr = self.ask("GetCertificateAuthorityCsr", CertificateAuthorityArn=arn)["Csr"]
        issued = self.ask("IssueCertificate", CertificateAuthorityArn=arn, SigningAlgorithm="SHA256WITHRSA",
                          Csr=base64.b64encode(csr.encode()).decode(), Validity={"Type": "YEARS", "Value": 10},
                          TemplateArn="arn:aws:acm-pca:::template/RootCACertificate/V1")["CertificateArn"]
        pem = self.ask("GetCertificate", CertificateAuthorityArn=arn, CertificateArn=issued)["Certificate"]
        self.ask("ImportCertificateAuthorityCertificate", CertificateAuthorityArn=arn,
                 Certificate=base64.b64encode(pem.encode()).decode())
        return arn

    def set_status(self, arn, status):
        self.ask("UpdateCertificateAuthority", CertificateAuthorityArn=arn, Status=status)

    def root(self, arn):
        return self.ask("GetCertificateAuthorityCertificate", CertificateAuthorityArn=arn)["Certificate"].strip()


def block(aws, arn, ca="", provider="aws_pca"):
    """A server's `ca` block."""
    return (f'ca {{\n  provider = "{provider}"\n{ca}  aws_pca {{\n    existing_arn = "{arn}"\n'
            f'    endpoint = "{aws.url}"\n  }}\n}}\n')
