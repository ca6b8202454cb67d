"""S3: the settings that are found, whether the server is reached and knows the bucket, and what its clock says."""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import SplitResult, urlsplit

import boto3
from botocore.exceptions import ClientError

from ecgdist import s3
from ecgdist.doctor.clock import clock_finding
from ecgdist.doctor.finding import Finding
from ecgdist.doctor.reaching import reached
from ecgdist.errors import ConfigError, StorageError
from ecgdist.storage import Location, translated

_CONNECT_S = 5.0
_UPLOADS = "unfinished uploads"
_UPLOADS_ADVICE = (
    "give the bucket a lifecycle rule that ends unfinished multipart uploads (AbortIncompleteMultipartUpload)"
)


def object_storage_findings(where: Location) -> list[Finding]:
    """What can be said of a bucket before anything is written; after an error, what needs it is not tried."""
    findings = [_settings()]
    if findings[-1].level != "error":
        findings.append(_reached(_endpoint()))
    if findings[-1].level != "error":
        findings += _bucket(where)
    if findings[-1].level != "error":
        findings.append(_unfinished_uploads(where))
    return findings


def _endpoint() -> SplitResult:
    return urlsplit(str(s3.client().meta.endpoint_url))


def _settings() -> Finding:
    """Where settings come from; never what a key is."""
    check = "S3 settings"
    try:
        client, endpoint = s3.client(), _endpoint()
    except (ConfigError, ValueError) as error:
        return Finding(check=check, level="error", measured=str(error), advice="correct this variable")
    found = boto3.session.Session().get_credentials()
    shown = f"{endpoint.scheme}://{endpoint.hostname}{f':{endpoint.port}' if endpoint.port else ''}"
    measured = (
        f"endpoint {shown}, region {client.meta.region_name}, timeout {os.environ.get(s3.TIMEOUT, '30')} s"
    )
    if found is None:
        return Finding(
            check=check,
            level="error",
            measured=f"{measured}, no credentials",
            advice="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use an instance role",
        )
    measured += f", credentials by {found.method}"
    if endpoint.scheme == "http" and not is_private(endpoint.hostname or ""):
        return Finding(
            check=check,
            level="warning",
            measured=f"{measured}; ECGs travel unencrypted",
            advice="use an https:// endpoint, or one in a private network",
        )
    return Finding(check=check, level="ok", measured=measured)


def is_private(host: str) -> bool:
    """Whether a host is this machine, an address of a private network, or a name without a public domain."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal"))


def _reached(endpoint: SplitResult) -> Finding:
    port = endpoint.port or (443 if endpoint.scheme == "https" else 80)
    advice = "check AWS_ENDPOINT_URL, the name server and the network"
    return reached("S3 endpoint", endpoint.hostname or "", port, _CONNECT_S, advice)


def _bucket(where: Location) -> list[Finding]:
    check, bucket = "bucket", _bucket_of(where)
    before_s = time.time()
    try:
        with translated(str(where)):
            try:
                response = s3.client().head_bucket(Bucket=bucket)
            except ClientError as error:
                response = error.response
                if s3.is_missing(error):  # the answer has no body that says what is missing
                    error.response["Error"]["Code"] = "NoSuchBucket"
                raise
            finally:
                after_s = time.time()
    except StorageError as error:
        what, _, advice = str(error).partition("; ")
        finding = Finding(check=check, level="error", measured=what, advice=advice or "see the message")
        if not isinstance(error.__cause__, ClientError):
            return [finding]
    else:
        finding = Finding(check=check, level="ok", measured=f"{bucket} may be listed")
    date = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    # The bucket last: whether to go on depends on it. A wrong clock is a reason to be refused.
    return [clock_finding("storage server", date, before_s, after_s), finding]


def _unfinished_uploads(where: Location) -> Finding:
    try:
        rules = s3.client().get_bucket_lifecycle_configuration(Bucket=_bucket_of(where)).get("Rules", [])
    except (ClientError, *s3.FAILURES) as error:
        code = error.response["Error"].get("Code") if isinstance(error, ClientError) else type(error).__name__
        if code != "NoSuchLifecycleConfiguration":
            return Finding(
                check=_UPLOADS,
                level="warning",
                measured=f"the lifecycle rules cannot be read ({code})",
                advice=_UPLOADS_ADVICE,
            )
        rules = []
    return lifecycle_finding(rules)


def lifecycle_finding(rules: Sequence[Mapping[str, Any]]) -> Finding:
    """Whether a bucket's rules remove what killed uploads of large files leave, which is paid for and never listed."""
    ends = any("AbortIncompleteMultipartUpload" in rule and rule.get("Status") == "Enabled" for rule in rules)
    if ends:
        return Finding(check=_UPLOADS, level="ok", measured="ended by a lifecycle rule")
    return Finding(check=_UPLOADS, level="warning", measured="nothing ends them", advice=_UPLOADS_ADVICE)


def _bucket_of(where: Location) -> str:
    return where.uri.removeprefix("s3://").partition("/")[0]
