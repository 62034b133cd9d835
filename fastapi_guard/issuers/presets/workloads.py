"""Presets for programs: service accounts of Google and Kubernetes, jobs of GitLab.

Every customer of such an issuer has the same one, so each preset needs to know whose programs are accepted.
"""

import re
from collections.abc import Collection, Sequence
from typing import Final, Unpack

from fastapi_guard.exceptions import ConfigurationError, shown
from fastapi_guard.issuers.oidc import OIDCAuth
from fastapi_guard.issuers.options import OIDCOptions, PresetOptions, asked_claims, with_required
from fastapi_guard.stores.arguments import items_of
from fastapi_guard.stores.hidden import plain

_SERVICE_ACCOUNT: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")
_OF_GITLAB: Final = frozenset({"namespace_id", "namespace_path", "project_id", "project_path", "sub"})


def google_service_account(
    audience: str | Sequence[str], email: str | Collection[str], **options: Unpack[PresetOptions]
) -> OIDCAuth:
    """Accept ID tokens of Google service accounts: Cloud Run, Cloud Scheduler, Cloud Tasks, Pub/Sub push.

    The e-mail address has to be verified, since any Google account can have a token for any audience.

    Sources: https://cloud.google.com/docs/authentication/token-types and
    https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions

    Args:
        audience: The audience that the token was requested for, by default the URL of the endpoint.
        email: The service account, or several, such as ``push@project.iam.gserviceaccount.com``.
        options: See PresetOptions.
    """
    own: OIDCOptions = {"accept": "id", "algorithms": ["RS256"]}
    required = with_required(own, options, {"email": email, "email_verified": True})
    return OIDCAuth("https://accounts.google.com", audience, **required)


def gitlab(
    audience: str | Sequence[str], *, url: str = "https://gitlab.com", **options: Unpack[PresetOptions]
) -> OIDCAuth:
    """Accept ID tokens of GitLab CI/CD jobs.

    Source: https://docs.gitlab.com/ci/secrets/id_token_authentication/

    Args:
        audience: The ``aud`` in the ``id_tokens`` of the job.
        url: The instance.
        options: See PresetOptions. ``require`` restricts the jobs, such as ``{"project_id": "22", "ref_protected":
            "true"}``: every project of an instance has the same issuer.

    Raises:
        ConfigurationError: ``require`` names no project, namespace or subject.
    """
    if _OF_GITLAB.isdisjoint(asked_claims(options)):
        msg = f"any job of the instance can have a token: require one of {', '.join(sorted(_OF_GITLAB))}"
        raise ConfigurationError(msg)
    own: OIDCOptions = {"accept": "id", "algorithms": ["RS256"]}
    return OIDCAuth(str(plain(url)).rstrip("/"), audience, **with_required(own, options))


def kubernetes(
    audience: str | Sequence[str],
    service_accounts: Collection[str],
    *,
    issuer: str = "https://kubernetes.default.svc.cluster.local",
    **options: Unpack[PresetOptions],
) -> OIDCAuth:
    """Accept projected tokens of Kubernetes service accounts, which have the claim ``kubernetes.io``.

    Source: https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/

    Args:
        audience: The audience of the projected volume.
        service_accounts: Each as ``namespace:name``.
        issuer: The service account issuer of the cluster. It may be a name, with ``jwks_uri``.
        options: See PresetOptions. Within the cluster, ``client`` has the cluster's certificate authority and the token
            of this pod, since the API server requires both.

    Raises:
        ConfigurationError: There is no service account, or one is not a namespace and a name.
    """
    names = items_of("service_accounts", service_accounts, 'such as ["shop:worker"]')
    if not names or not all(isinstance(name, str) and _SERVICE_ACCOUNT.fullmatch(name) for name in names):
        msg = f'service_accounts is a list such as ["shop:worker"], not {shown(service_accounts)}'
        raise ConfigurationError(msg)
    own: OIDCOptions = {"algorithms": ["RS256", "ES256"], "access_mark": {"kubernetes.io": True}}
    subjects = [f"system:serviceaccount:{name}" for name in names]
    return OIDCAuth(issuer, audience, **with_required(own, options, {"sub": subjects}))
