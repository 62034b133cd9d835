from typing import Any

import pytest

from fastapi_guard import ConfigurationError
from fastapi_guard.issuers import OIDCAuth, presets
from support.provider import WITHOUT, Case, check_table

ACTIONS = "https://token.actions.githubusercontent.com"
PUSH = "push@shop-1.iam.gserviceaccount.com"
ENDPOINT = "https://api.example/push"

CASES = {
    "google service account": Case(
        auth=lambda **options: presets.google_service_account("https://api.example", [PUSH, "b@x"], **options),
        issuer="https://accounts.google.com",
        keys_at="https://www.googleapis.com/oauth2/v3/certs",
        found=True,
        good={
            "sub": "102987654321098765432",
            "aud": "https://api.example",
            "azp": "102987654321098765432",
            "email": PUSH,
            "email_verified": True,
        },
        refused={
            "another service account": {"email": "other@shop-1.iam.gserviceaccount.com"},
            "an address that is not verified": {"email_verified": False},
            "a verification that is text": {"email_verified": "true"},
            "no address": {"email": WITHOUT},
            "another audience": {"aud": "https://other.example"},
        },
    ),
    "pub/sub push": Case(
        auth=lambda **options: presets.google_service_account(ENDPOINT, PUSH, **options),
        issuer="https://accounts.google.com",
        keys_at="https://www.googleapis.com/oauth2/v3/certs",
        found=True,
        good={"sub": "113774264463038321964", "aud": ENDPOINT, "azp": "1137", "email": PUSH, "email_verified": True},
        refused={"another subscription": {"aud": "https://api.example/other"}, "a user": {"email": "ada@gmail.com"}},
    ),
    "github": Case(
        auth=lambda **options: OIDCAuth.github_actions(
            "https://deploy.example", require={"repository_id": "1296269", "ref": "refs/heads/main"}, **options
        ),
        issuer=ACTIONS,
        keys_at=f"{ACTIONS}/.well-known/jwks",
        found=True,
        good={
            "sub": "repo:octo-org/octo-repo:ref:refs/heads/main",
            "aud": "https://deploy.example",
            "jti": "example-id",
            "repository": "octo-org/octo-repo",
            "repository_id": "1296269",
            "ref": "refs/heads/main",
            "event_name": "push",
        },
        refused={
            "another repository": {"repository_id": "1296270"},
            "an id that is a number": {"repository_id": 1296269},
            "a pull request": {"ref": "refs/pull/7/merge"},
            "another audience": {"aud": "https://github.com/octo-org"},
        },
    ),
    "github of an enterprise": Case(
        auth=lambda **options: OIDCAuth.github_actions(
            "api", issuer=f"{ACTIONS}/octocat-inc", require={"repository_owner_id": "65"}, **options
        ),
        issuer=f"{ACTIONS}/octocat-inc",
        keys_at=f"{ACTIONS}/octocat-inc/.well-known/jwks",
        found=True,
        good={"sub": "repo:octo-org/octo-repo:environment:prod", "aud": "api", "repository_owner_id": "65"},
        refused={"the issuer of everyone": {"iss": ACTIONS}, "another enterprise": {"iss": f"{ACTIONS}/other"}},
    ),
    "gitlab": Case(
        auth=lambda **options: presets.gitlab(
            "https://api.example", require={"project_id": "22", "ref_protected": "true"}, **options
        ),
        issuer="https://gitlab.com",
        keys_at="https://gitlab.com/oauth/discovery/keys",
        found=True,
        good={
            "sub": "project_path:my-group/my-project:ref_type:branch:ref:main",
            "aud": "https://api.example",
            "project_id": "22",
            "namespace_id": "72",
            "ref": "main",
            "ref_protected": "true",
        },
        refused={
            "another project": {"project_id": "23"},
            "a branch that is not protected": {"ref_protected": "false"},
            "the ID token of a user": {"project_id": WITHOUT, "ref_protected": WITHOUT, "auth_time": 1},
            "another audience": {"aud": "https://vault.example"},
        },
    ),
    "gitlab of your own": Case(
        auth=lambda **options: presets.gitlab(
            "api", url="https://git.example/", require={"namespace_path": "shop"}, **options
        ),
        issuer="https://git.example",
        keys_at="https://git.example/oauth/discovery/keys",
        found=True,
        good={"sub": "project_path:shop/api:ref_type:branch:ref:main", "aud": "api", "namespace_path": "shop"},
        refused={"gitlab.com": {"iss": "https://gitlab.com"}, "another namespace": {"namespace_path": "shop2"}},
    ),
    "kubernetes": Case(
        auth=lambda **options: presets.kubernetes("orders", ["shop:worker"], **options),
        issuer="https://kubernetes.default.svc.cluster.local",
        keys_at="https://10.0.0.1:6443/openid/v1/jwks",
        found=True,
        header={},
        good={
            "sub": "system:serviceaccount:shop:worker",
            "aud": ["orders"],
            "jti": "ea28ed49-2e11-4280-9ec5-bc3d1d84661a",
            "kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "worker", "uid": "14ee3fa4"}},
        },
        refused={
            "another service account": {"sub": "system:serviceaccount:shop:default"},
            "another namespace": {"sub": "system:serviceaccount:kube-system:worker"},
            "the audience of the API server": {"aud": ["https://kubernetes.default.svc.cluster.local"]},
            "another kind of token": {"kubernetes.io": WITHOUT},
            "an empty claim": {"kubernetes.io": {}},
        },
    ),
    "kubernetes with a name": Case(
        auth=lambda **options: presets.kubernetes(
            "orders",
            ["shop:worker"],
            issuer="kubernetes/serviceaccount",
            jwks_uri="https://kubernetes.default.svc/openid/v1/jwks",
            **options,
        ),
        issuer="kubernetes/serviceaccount",
        keys_at="https://kubernetes.default.svc/openid/v1/jwks",
        good={"sub": "system:serviceaccount:shop:worker", "aud": ["orders"], "kubernetes.io": {"namespace": "shop"}},
        refused={"a secret that never expires": {"exp": WITHOUT, "aud": WITHOUT}},
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_tokens_of_a_provider(case: Case) -> None:
    """Each preset accepts the documented tokens of its provider, by its documents, and refuses the table."""
    await check_table(case)


@pytest.mark.parametrize("require", [{}, {"ref": "main"}, {"ref_protected": "true"}])
def test_gitlab_needs_to_know_whose(require: dict[str, Any]) -> None:
    """Every project of an instance has the same issuer, so that an audience alone accepts any job."""
    with pytest.raises(ConfigurationError, match="any job"):
        presets.gitlab("api", require=require)


@pytest.mark.parametrize("accounts", [[], "shop:worker", ["worker"], ["shop:"], ["Shop:worker"], ["a:b:c"], [7], 5])
def test_kubernetes_takes_service_accounts(accounts: Any) -> None:
    """Each is a namespace and a name; without any, every pod of the cluster would be accepted."""
    with pytest.raises(ConfigurationError, match="service_accounts is a list"):
        presets.kubernetes("orders", accounts)


def test_a_service_account_is_named() -> None:
    """Without an address, any Google account would be accepted."""
    for email in ("", [], None):
        with pytest.raises(ConfigurationError, match=r"require\['email'\]"):
            presets.google_service_account("https://api.example", email)  # type: ignore[arg-type]


@pytest.mark.parametrize("require", [None, ["project_id"]])
def test_gitlab_takes_a_mapping(require: Any) -> None:
    """The claims that a job has to have are a mapping."""
    with pytest.raises(ConfigurationError, match="require is a mapping"):
        presets.gitlab("api", require=require)
