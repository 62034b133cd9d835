"""A single-page application with its API: one HTML file, fetch, and the refresh token in an HttpOnly cookie.

Copy this folder, and run these commands beside it. The third prompts for a password of 15 characters.

    pip install 'fastapi-guard-auth[cli,http,passwords,sqlalchemy,throttle,totp]' uvicorn
    fastapi-guard init-db --database-url sqlite:///spa.db
    fastapi-guard users create ada@example.com --database-url sqlite:///spa.db
    export SPA_KEY=$(python -c 'import secrets; print(secrets.token_urlsafe(32))')
    uvicorn spa.main:app

It is served at http://localhost:8000. Elsewhere, set SPA_SITE to the https origin. To sign in with an OpenID Connect
provider, set SPA_ISSUER, SPA_CLIENT_ID and SPA_CLIENT_SECRET, and register http://localhost:8000/signed-in/acme there.
"""
