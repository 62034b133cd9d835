"""Presets: an Auth for each of the issuers and identity-aware proxies that people have.

Each function returns an Auth with the issuer, the keys, the algorithms and the marks of the tokens of one provider.
Google, Entra ID, Auth0, Keycloak and GitHub Actions are class methods of OIDCAuth.
"""

from fastapi_guard.issuers.presets.accounts import (
    apple,
    clerk,
    cognito,
    firebase,
    firebase_session,
    fusionauth,
    okta,
    okta_org,
    supabase,
    supabase_hs256,
    workos,
    zitadel,
)
from fastapi_guard.issuers.presets.alb import aws_alb
from fastapi_guard.issuers.presets.microsoft import adfs, entra_b2c, entra_tenants
from fastapi_guard.issuers.presets.proxies import cloudflare_access, google_iap
from fastapi_guard.issuers.presets.workloads import gitlab, google_service_account, kubernetes

__all__ = [
    "adfs",
    "apple",
    "aws_alb",
    "clerk",
    "cloudflare_access",
    "cognito",
    "entra_b2c",
    "entra_tenants",
    "firebase",
    "firebase_session",
    "fusionauth",
    "gitlab",
    "google_iap",
    "google_service_account",
    "kubernetes",
    "okta",
    "okta_org",
    "supabase",
    "supabase_hs256",
    "workos",
    "zitadel",
]
